/* Sparse convolution. The padded input is split by the phases of the stride, so that every weight multiplies one contiguous
   stretch of a plane; columns at the right border compute what nobody reads. */
static void sb3s_convolution(const sb3s_layer *layer, const float *restrict w, const int32_t *restrict offsets,
                             const int32_t *restrict counts, const float *restrict b, const float *restrict x,
                             float *restrict y, float *restrict phases) {
    int c, i, j, o;
    const int sh = layer->stride_height, sw = layer->stride_width, pitch = layer->pitch, phase = layer->phase;
    const int stretch = (layer->out_height - 1) * pitch + layer->out_width;
    const long planes = (long)layer->channels * sh * sw * phase;
    float *restrict sums = phases + planes;
    memset(phases, 0, sizeof(float) * (size_t)planes);
    for (c = 0; c < layer->channels; c++)
        for (i = 0; i < layer->height; i++, x += layer->width) {
            const int row = i + layer->pad_height;
            const long first = (long)(c * sh + row % sh) * sw * phase + (row / sh) * pitch;
            for (j = 0; j < sw && j < layer->width; j++) {
                const int column = j + layer->pad_width;
                float *restrict plane = phases + first + (long)(column % sw) * phase + column / sw;
                for (o = j; o < layer->width; o += sw) *plane++ = x[o];
            }
        }
    for (o = 0; o < layer->out; o++) {
        for (i = 0; i < stretch; i++) sums[i] = b[o];
        /* Four weights at a time, so that the sums are read and written a fourth as often. */
        for (j = counts[o]; j >= 4; j -= 4, w += 4, offsets += 4) {
            const float *restrict p = phases + offsets[0], *restrict q = phases + offsets[1];
            const float *restrict r = phases + offsets[2], *restrict s = phases + offsets[3];
            for (i = 0; i < stretch; i++) sums[i] += (w[0] * p[i] + w[1] * q[i]) + (w[2] * r[i] + w[3] * s[i]);
        }
        for (; j > 0; j--, w++, offsets++) {
            const float *restrict p = phases + *offsets;
            for (i = 0; i < stretch; i++) sums[i] += *w * p[i];
        }
        for (i = 0; i < layer->out_height; i++, y += layer->out_width)
            memcpy(y, sums + i * pitch, sizeof(float) * (size_t)layer->out_width);
    }
}
