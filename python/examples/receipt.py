"""Two questions about one picture, as in MLX-VLM's introduction; only the import line is another. The second turn encodes nothing.

    python receipt.py models/demo models/demo/media/receipt.png"""
import sys

from vlmc import apply_chat_template, generate, load, load_config

path, image = sys.argv[1], [sys.argv[2]]
model, processor = load(path)
config = load_config(path)

first = "Extract the total amount from the receipt."
prompt = apply_chat_template(processor, config, first, num_images=len(image))
answer = generate(model, processor, prompt, image=image, max_tokens=64, temperature=0.0)
print(answer.text)

conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": first}]},
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": "Read the text."}]
prompt = apply_chat_template(processor, config, conversation)
answer = generate(model, processor, prompt, image=image, max_tokens=64, temperature=0.0)
print(answer.text)
print(f"{answer.prompt_tokens} prompt tokens, {answer.cached_tokens} cached; {answer.media_cached} of {answer.media_items} media from the cache")
print("the second turn encoded nothing" if answer.media_cached == answer.media_items and answer.encode_seconds == 0 and answer.cached_tokens
      else "the second turn encoded the picture again")
