/* mel.h - log-mel spectrograms as the families' feature extractors compute them: one function, the differences are data. */
#ifndef VLM_MEDIA_MEL_H
#define VLM_MEDIA_MEL_H

#include "media/media.h"

typedef enum mel_scale { MEL_HTK, MEL_SLANEY, MEL_KALDI } mel_scale;
typedef enum mel_log {
    MEL_LN_FLOOR,                  /* ln(max(x, floor)) */
    MEL_LN_PLUS,                   /* ln(x + floor) */
    MEL_LOG10_WHISPER              /* l = log10(max(x, floor)); (max(l, largest l - 8) + 4) / 4; the last frame is dropped */
} mel_log;

typedef struct mel_spec {
    int rate;                      /* 16000 */
    int frame_length, hop, fft;    /* samples; window of frame_length, zero-padded to fft */
    int bins;                      /* mel channels */
    double min_hz, max_hz;
    mel_scale scale;
    bool slaney_norm;              /* area-normalised filters */
    bool mel_triangles;            /* filters are triangles on the mel axis (torchaudio, Kaldi), else on the Hz axis */
    bool power;                    /* |X|^2, else |X| */
    bool periodic_window;          /* Hann */
    bool hamming;                  /* instead of Hann */
    double preemphasis;            /* 0: none */
    bool preemphasis_htk;
    double input_scale;            /* samples are multiplied with it; 1 */
    int pad_left, pad_right;       /* zeros (or reflection) around the signal */
    bool pad_reflect;
    int frame_extra;               /* samples that a frame reads beyond frame_length (Gemma unfolds frame_length + 1) */
    mel_log log;
    double floor;
    const double *mean, *stddev;   /* [bins] or NULL */
} mel_spec;

/* As Whisper's feature extractor has it (16 kHz, 400, 160; bins 80 or 128), without its padding to 30 seconds. */
mel_spec mel_spec_whisper(int bins);
/* How many frames mel_spectrogram makes of `count` samples; 0 if none. */
int64_t mel_frames(const mel_spec *spec, int64_t count);

/* out: [*frames, bins] float32, allocated with mem_*; the caller frees. */
bool mel_spectrogram(const float *samples, int64_t count, const mel_spec *spec, float **out, int64_t *frames, vlm_error *error);

#endif
