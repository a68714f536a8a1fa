"""Tokenizer / processor / generation config files of the checkpoint (written with transformers' own classes)."""
import json, os, sys
from data import MODEL
def save_processor(out):
    from transformers import GemmaTokenizer, Gemma4Processor, GenerationConfig
    from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
    from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    extra = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>",
             "sot_token": "<|turn>", "eot_token": "<turn|>", "soc_token": "<|channel>", "eoc_token": "<channel|>", "think_token": "<|think|>", "escape_token": '<|"|>',
             "str_token": "<|tool_response>", "etr_token": "<tool_response|>", "stc_token": "<|tool_call>", "etc_token": "<tool_call|>", "std_token": "<|tool>", "etd_token": "<tool|>"}
    j = json.load(open(os.path.join(MODEL, "tokenizer.json")))
    tok = GemmaTokenizer(vocab=j["model"]["vocab"], merges=[tuple(m) for m in j["model"]["merges"]], padding_side="left", add_bos_token=False,
                         extra_special_tokens=extra, model_max_length=8192)
    tmpl = open(os.path.join(MODEL, "chat_template.jinja")).read()
    proc = Gemma4Processor(feature_extractor=Gemma4AudioFeatureExtractor(), image_processor=Gemma4ImageProcessor(max_soft_tokens=140), tokenizer=tok,
                           video_processor=Gemma4VideoProcessor(max_soft_tokens=70, num_frames=6), chat_template=tmpl, image_seq_length=140)
    proc.save_pretrained(out)
    t = tok.convert_tokens_to_ids
    GenerationConfig(bos_token_id=2, pad_token_id=0, eos_token_id=[1, t("<turn|>"), t("<|tool_response>")], do_sample=False, max_new_tokens=512).save_pretrained(out)
    return proc
if __name__ == "__main__":
    p = save_processor(sys.argv[1])
    print(os.listdir(sys.argv[1]))
