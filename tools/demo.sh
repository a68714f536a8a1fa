#!/bin/sh
# demo.sh VLM: what the shipped model (12 M parameters) does, with the times it takes.
set -eu
cd "$(dirname "$0")/.."
vlm=$1
media=models/demo/media
say() {
    printf '\n$ vlm generate'
    for word in "$@"; do case $word in '') printf " ''" ;; *[!A-Za-z0-9_./-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done
    printf '\n'
}
ask() {
    say "$@"
    begin=$(date +%s%N)
    "$vlm" generate "$@"
    end=$(date +%s%N)
    printf '   (%d ms from process start to the last token)\n' $(((end - begin) / 1000000))
}
echo "A 12 M parameter model, trained for this project (models/demo/README.md), on the CPU:"
ask --image $media/receipt.png --prompt "Read the text."
ask --image $media/receipt.png --prompt "Extract the total amount from the receipt."
ask --image $media/receipt.png --prompt "Return JSON with store, date, items, total."
ask --image $media/receipt_8k.png --prompt "Extract the total amount from the receipt."
echo
echo "A spoken question ($media/ask_total.wav: \"What is the total?\") about a picture, no text at all:"
ask --image $media/receipt.png --audio $media/ask_total.wav --prompt ""
ask --audio $media/command.wav --prompt "Transcribe the audio."
ask --video $media/clip.mp4 --prompt "What happens in the video?"
echo
echo "Next: $vlm chat"
