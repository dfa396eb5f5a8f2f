/* Convolutions of bytes for NEON, included by neon.h. Inputs are packed in quads of bytes and done in tiles as by vbmi_convolution.h;
   a lane of a tile is a quad, its bytes less 128. */

/* Bytes of channels to quads, split by the phases of the stride: [channels / 4, phases down, phases right, rows, columns, 4]. Only
   inputs that are never negative are padded, so the byte 0 stands for 0. */
static void sb3s_pack(const sb3s_layer *layer, const uint8_t *bytes, int32_t *packed) {
    const int sh = layer->stride_height, sw = layer->stride_width, pitch = layer->pitch / 4;
    const long size = (long)layer->height * layer->width;
    const long phase = (long)pitch * ((layer->height + 2 * layer->pad_height + sh - 1) / sh);
    int c, i, j, k;
    if (layer->pad_height || layer->pad_width) memset(packed, 0, 4 * (size_t)layer->phase);
    for (c = 0; c < layer->channels; c += 4, packed += phase * sh * sw) {
        /* What stands for channels that do not exist meets weights of 0. */
        const int last = layer->channels - c - 1;
        const uint8_t *a = bytes + c * size, *b = last > 0 ? a + size : a, *d = last > 1 ? b + size : a, *e = last > 2 ? d + size : a;
        /* Rows and columns by phase, and their number in it. */
        int down = layer->pad_height % sh, row = layer->pad_height / sh;
        for (i = 0; i < layer->height; i++, a += layer->width, b += layer->width, d += layer->width, e += layer->width) {
            int32_t *const target = packed + phase * sw * down + (long)pitch * row;
            int right = layer->pad_width % sw, column = layer->pad_width / sw;
            for (j = 0; j < layer->width; j += 64) {
                const int count = layer->width - j < 64 ? layer->width - j : 64;
                uint32_t quads[64];
                for (k = 0; k < count; k++)
                    quads[k] = a[j + k] | (uint32_t)b[j + k] << 8 | (uint32_t)d[j + k] << 16 | (uint32_t)e[j + k] << 24;
                for (k = 0; k < count; k++) {
                    target[phase * right + column] = (int32_t)quads[k];
                    if (++right == sw) right = 0, column++;
                }
            }
            if (++down == sh) down = 0, row++;
        }
    }
}

/* The inputs of some output rows: for each quad of a window that of all their places, one after the other. Of packed inputs it may
   be one stretch, with what lies between the rows; else it is row by row. */
static void sb3s_copy(const sb3s_layer *layer, const int32_t *places, const uint8_t *source, int rows, int32_t *tile) {
    const int flat = layer->across != layer->out_width, width = flat ? 16 * layer->vectors : layer->out_width;
    const uint8x16_t flip = vdupq_n_u8(0x80);
    int n, i, j;
    for (n = 0; n < layer->runs; n++, tile += 16 * layer->vectors) {
        const uint8_t *row = source + places[n];
        for (i = 0; i < (flat ? 1 : rows); i++, row += layer->pitch) {
            uint8_t *target = (uint8_t *)(tile + i * width);
            for (j = 0; j + 16 <= 4 * width; j += 16) vst1q_u8(target + j, veorq_u8(vld1q_u8(row + j), flip));
            for (; j < 4 * width; j++) target[j] = row[j] ^ 0x80;
        }
    }
}

/* One output channel of a tile: its quads of weights, times so many times 16 lanes each. */
#define SB3S_SUMS(n)                                                                                                      \
    static inline void sb3s_sums_##n(const char *tile, const int32_t *quads, const int32_t *w, int count, int32x4_t *sums) {\
        enum { size = 4 * (n) };                                                                                          \
        int32x4_t sum[size];                                                                                              \
        int k;                                                                                                            \
        for (k = 0; k < size; k++) sum[k] = sums[k];                                                                      \
        for (; count; count--, quads++, w++) {                                                                            \
            const int32_t *inputs = (const int32_t *)(tile + *quads);                                                     \
            const int32x4_t weights = vdupq_n_s32(*w);                                                                    \
            for (k = 0; k < size; k++) sum[k] = sb3s_dot(sum[k], vld1q_s32(inputs + 4 * k), weights);                     \
        }                                                                                                                 \
        for (k = 0; k < size; k++) sums[k] = sum[k];                                                                      \
    }
SB3S_SUMS(1)
SB3S_SUMS(2)
SB3S_SUMS(3)
SB3S_SUMS(4)
SB3S_SUMS(5)
SB3S_SUMS(6)
#undef SB3S_SUMS

/* Of all lanes of a tile, six times 16 at a time: more sums do not fit into the registers. */
static void sb3s_sums(const char *tile, const int32_t *quads, const int32_t *w, int count, int vectors, int32x4_t *sums) {
    for (; vectors > 0; vectors -= 6, tile += 6 * 64, sums += 24) {
        switch (vectors) {
#define SB3S_CASE(n)                                                                                                      \
    case n:                                                                                                               \
        sb3s_sums_##n(tile, quads, w, count, sums);                                                                       \
        break
            SB3S_CASE(1);
            SB3S_CASE(2);
            SB3S_CASE(3);
            SB3S_CASE(4);
            SB3S_CASE(5);
        default:
            sb3s_sums_6(tile, quads, w, count, sums);
#undef SB3S_CASE
        }
    }
}

/* A whole layer, from floats, which become bytes in place, or from pixels if there are any. They are read where they are if the
   quads are pixels of a row. */
static int sb3s_patches(const sb3s_layer *layer, const char *base, const uint8_t *pixels, float *restrict x,
                        float *restrict y, float *restrict scratch, sb3s_range *found) {
    const int32_t *places = (const int32_t *)(base + layer->places), *counts = (const int32_t *)(base + layer->counts);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *rows = (const float *)(base + layer->sums);
    const int size = layer->out_height * layer->out_width, relu = layer->activation == SB3S_RELU, width = layer->out_width;
    const int registers = 4 * layer->vectors;
    const uint8_t *source = pixels;
    int32_t *tile = (int32_t *)scratch + layer->phase;
    sb3s_range range;
    sb3s_grid grid;
    int start, o, i, j, k;
    if (pixels)
        grid.unit = vdupq_n_f32(1.0f), grid.offset = grid.inverse = grid.shift = vdupq_n_f32(0.0f);
    else {
        grid = sb3s_measure(layer, x, found);
        sb3s_to_bytes(x, layer->in, &grid);
        source = (const uint8_t *)x;
    }
    if (layer->phase) {
        sb3s_pack(layer, source, (int32_t *)scratch);
        source = (const uint8_t *)scratch;
    }
    sb3s_clear(&range);
    for (start = 0; start < layer->out_height; start += layer->tile) {
        const int height = layer->out_height - start < layer->tile ? layer->out_height - start : layer->tile;
        const int32_t *quads = (const int32_t *)(base + layer->indices), *w = (const int32_t *)(base + layer->weights);
        /* Lanes that are places of the output, and the outputs of all lanes with room for a vector beyond the last. */
        uint32_t valid[128] = {0};
        float outputs[128 + 4];
        float *out = y + start * width;
        sb3s_copy(layer, places, source + (long)start * layer->pitch, height, tile);
        for (i = 0; i < height; i++)
            for (k = 0; k < width; k++) valid[i * layer->across + k] = 0xffffffff;
        for (o = 0; o < layer->out; o++, out = y + (long)o * size + start * width) {
            /* scale * (unit * sum + lowest * (sum of the row's weights)) + bias */
            const float32x4_t scale = vdupq_n_f32(scales[o]), bias = vdupq_n_f32(b[o]);
            const float32x4_t shift = vmulq_n_f32(grid.offset, rows[o]);
            int32x4_t sums[32];
            for (k = 0; k < registers; k++) sums[k] = vdupq_n_s32(128 * (int32_t)rows[o]);
            sb3s_sums((const char *)tile, quads, w, counts[o], layer->vectors, sums);
            quads += counts[o];
            w += counts[o];
            for (k = 0; k < registers; k++) {
                const float32x4_t value = vfmaq_f32(shift, vcvtq_f32_s32(sums[k]), grid.unit);
                const uint32x4_t done = vreinterpretq_u32_f32(vfmaq_f32(bias, value, scale));
                const float32x4_t kept = vreinterpretq_f32_u32(vandq_u32(done, vld1q_u32(valid + 4 * k)));
                vst1q_f32(outputs + 4 * k, sb3s_finish(&range, relu, kept));
            }
            /* What is written beyond a row is overwritten by the next one; nothing may be beyond the last. */
            for (i = 0; i < height; i++, out += width) {
                const float *row = outputs + i * layer->across;
                const int whole = i < height - 1 ? width : width & ~3;
                for (j = 0; j < whole; j += 4) vst1q_f32(out + j, vld1q_f32(row + j));
                for (; j < width; j++) out[j] = row[j];
            }
        }
    }
    *found = range;
    return sb3s_is_finished(layer);
}
