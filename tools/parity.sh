#!/bin/bash
# parity.sh FOLDER...: `vlm check` in all modes on every checkpoint below the folders (those with a cases.json), one line each; what differs is
# shown. VLM: the program, MEDIA: where media lie. Larger sets of cases than those in tests/data are kept outside the repository.
vlm=${VLM:-build/release/vlm} modes=${MODES:-solo,batch,chunk,cached,preempt} bad=0
for file in $(find "$@" -maxdepth 2 -name cases.json | sort); do
    dir=$(dirname "$file")
    if out=$("$vlm" check "$dir" --modes "$modes" ${MEDIA:+--media "$MEDIA"} 2>&1); then
        echo "agrees   $dir"
    else
        echo "DIFFERS  $dir"
        grep -v ' ok ' <<< "$out" | head -12
        bad=1
    fi
done
exit $bad
