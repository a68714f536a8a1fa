/* fft.h - discrete Fourier transform of real signals, any size, in double precision. */
#ifndef VLM_MEDIA_FFT_H
#define VLM_MEDIA_FFT_H

#include <stdbool.h>

typedef struct fft_cpx { double re, im; } fft_cpx;
typedef struct fft fft;

enum { FFT_MAX = 1 << 16 };
/* NULL when out of memory or n is not in 1 .. FFT_MAX. A plan has scratch of its own: one thread at a time. */
fft *fft_new(int n);
void fft_free(fft *f);
/* in: n values; out: n / 2 + 1 values. */
void fft_real(fft *f, const double *in, fft_cpx *out);

#endif
