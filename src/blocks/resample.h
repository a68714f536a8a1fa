/* resample.h - tables of positions for pictures of another size: smoothed when they get smaller, in float32 as torch's interpolate(antialias=True) does it. */
#ifndef VLM_BLOCKS_RESAMPLE_H
#define VLM_BLOCKS_RESAMPLE_H

#include "tensor/ops.h"

/* table [side * side, d] -> [rows * columns, d]: bilinear, or bicubic (a = -0.5). Along its rows first. side: RESAMPLE_MOST_SIDE at most. */
enum { RESAMPLE_MOST_SIDE = 512 };
tensor resample_table(run *r, const float *table, int side, int64_t d, int rows, int columns, bool cubic);
/* table [n, d] -> [to, d]: linear between pixel centres, not smoothed (interpolate(mode="linear")). */
tensor resample_line(run *r, const float *table, int n, int64_t d, int to);

#endif
