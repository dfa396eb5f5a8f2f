/* Convolutions of bytes for AVX-512 VBMI + VNNI, included by vbmi.h. Four inputs and their four weights make one 32-bit lane of
   vpdpbusd, a quad: four channels at one place, or four pixels of a row where the stride is four, as images lie in memory. A lane
   is an output place, so every quad of weights that exists multiplies a few whole registers, and those that do not cost nothing.

   A tile of output rows is done at a time. Its inputs are copied first, quad by quad, such that no load crosses a cache line. */

static inline __mmask16 sb3s_first(int lanes) { return lanes >= 16 ? 0xffff : lanes <= 0 ? 0 : (__mmask16)((1u << lanes) - 1); }

/* Up to 16 inputs of one channel as integers from 0 to 255. */
static inline __m512i sb3s_integers(const float *x, const uint8_t *pixels, long at, __mmask16 mask, const sb3s_grid *grid) {
    if (pixels) return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, pixels + at));
    return _mm512_cvtps_epi32(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, x + at), grid->inverse, grid->shift));
}

/* Channels to quads of four: [channels, height, width] to [channels / 4, height + padding, width + padding, 4]. Only inputs
   that are never negative are padded, so the byte 0 stands for 0. */
static void sb3s_pack(const sb3s_layer *layer, const float *x, const uint8_t *pixels, const sb3s_grid *grid, uint8_t *packed) {
    const int padded = layer->pad_height || layer->pad_width;
    /* Without padding, a channel is one long row. */
    const int rows = padded ? layer->height : 1, columns = padded ? layer->width : layer->height * layer->width;
    const long size = (long)layer->height * layer->width, plane = (long)layer->pitch * (layer->height + 2 * layer->pad_height);
    int c, i, j;
    if (padded) memset(packed, 0, (size_t)plane * (size_t)((layer->channels + 3) / 4));
    for (c = 0; c < layer->channels; c += 4, packed += plane) {
        const int missing = c + 4 - layer->channels;
        for (i = 0; i < rows; i++) {
            uint8_t *row = packed + (long)layer->pitch * (i + layer->pad_height) + 4 * layer->pad_width;
            for (j = 0; j < columns; j += 16) {
                const __mmask16 mask = sb3s_first(columns - j);
                const long at = c * size + (long)i * columns + j;
                __m512i quad = sb3s_integers(x, pixels, at, mask, grid);
#define SB3S_CHANNEL(k)                                                                                                   \
    if (missing < 4 - (k))                                                                                                \
    quad = _mm512_or_si512(quad, _mm512_slli_epi32(sb3s_integers(x, pixels, at + (k) * size, mask, grid), 8 * (k)))
                SB3S_CHANNEL(1);
                SB3S_CHANNEL(2);
                SB3S_CHANNEL(3);
#undef SB3S_CHANNEL
                _mm512_mask_storeu_epi32(row + 4 * j, mask, quad);
            }
        }
    }
}

/* The inputs of some output rows: for each quad of a window that quad of all their places, one after the other. */
static void sb3s_copy(const sb3s_layer *layer, const int32_t *places, const uint8_t *source, int rows, int32_t *tile) {
    const int width = layer->out_width, step = layer->stride_width, size = 16 * layer->vectors;
    const long down = (long)layer->stride_height * layer->pitch;
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i steps = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(step));
    int quad, i, j;
    for (quad = 0; quad < layer->runs; quad++, tile += size) {
        const uint8_t *row = source + places[quad];
        for (i = 0; i < rows; i++, row += down)
            for (j = 0; j < width; j += 16) {
                const uint8_t *from = row + 4L * j * step;
                const int count = width - j < 16 ? width - j : 16;
                __m512i values;
                if (step == 1) {
                    values = _mm512_maskz_loadu_epi32(sb3s_first(count), from);
                } else if (step == 2) {
                    const __m512i low = _mm512_maskz_loadu_epi32(sb3s_first(2 * count - 1), from);
                    const __m512i high = _mm512_maskz_loadu_epi32(sb3s_first(2 * count - 17), from + 64);
                    values = _mm512_permutex2var_epi32(low, steps, high);
                } else {
                    values = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), sb3s_first(count), steps, from, 4);
                }
                /* What is written beyond the row is overwritten by what comes next. */
                _mm512_storeu_si512(tile + i * width + j, values);
            }
    }
}

/* One output channel of a tile: its quads of weights, times so many registers each. Two sets of sums, for they wait for each other. */
#define SB3S_SUMS(n)                                                                                                      \
    static inline void sb3s_sums_##n(const char *tile, const int32_t *quads, const int32_t *w, int count, __m512i *sums) { \
        __m512i sum[n], other[n];                                                                                         \
        int k;                                                                                                            \
        for (k = 0; k < n; k++) sum[k] = other[k] = _mm512_setzero_si512();                                               \
        for (; count >= 2; count -= 2, quads += 2, w += 2) {                                                              \
            const __m512i weight = _mm512_set1_epi32(w[0]), next = _mm512_set1_epi32(w[1]);                               \
            const char *a = tile + quads[0], *b = tile + quads[1];                                                        \
            for (k = 0; k < n; k++) sum[k] = _mm512_dpbusd_epi32(sum[k], _mm512_load_si512(a + 64 * k), weight);          \
            for (k = 0; k < n; k++) other[k] = _mm512_dpbusd_epi32(other[k], _mm512_load_si512(b + 64 * k), next);        \
        }                                                                                                                 \
        if (count) {                                                                                                      \
            const __m512i weight = _mm512_set1_epi32(*w);                                                                 \
            for (k = 0; k < n; k++) sum[k] = _mm512_dpbusd_epi32(sum[k], _mm512_load_si512(tile + *quads + 64 * k), weight); \
        }                                                                                                                 \
        for (k = 0; k < n; k++) sums[k] = _mm512_add_epi32(sum[k], other[k]);                                             \
    }
SB3S_SUMS(1)
SB3S_SUMS(2)
SB3S_SUMS(3)
SB3S_SUMS(4)
SB3S_SUMS(5)
SB3S_SUMS(6)
SB3S_SUMS(7)
SB3S_SUMS(8)
#undef SB3S_SUMS

/* A whole layer, from floats, or from pixels if there are any. They are read where they are if the quads are pixels of a row. */
static int sb3s_patches(const sb3s_layer *layer, const char *base, const uint8_t *pixels, const float *restrict x,
                        float *restrict y, float *restrict scratch, sb3s_range *found) {
    const int32_t *places = (const int32_t *)(base + layer->places), *counts = (const int32_t *)(base + layer->counts);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *rows = (const float *)(base + layer->sums);
    const int size = layer->out_height * layer->out_width, relu = layer->activation == SB3S_RELU;
    const uint8_t *source = pixels;
    int32_t *tile = (int32_t *)scratch + layer->phase;
    sb3s_range range;
    sb3s_grid grid;
    int start, o, k;
    if (pixels)
        grid.unit = _mm512_set1_ps(1.0f), grid.offset = grid.inverse = grid.shift = _mm512_setzero_ps();
    else
        grid = sb3s_measure(layer->in, x, found);
    if (layer->phase) {
        sb3s_pack(layer, x, pixels, &grid, (uint8_t *)scratch);
        source = (const uint8_t *)scratch;
    }
    sb3s_clear(&range);
    for (start = 0; start < layer->out_height; start += layer->tile) {
        const int height = layer->out_height - start < layer->tile ? layer->out_height - start : layer->tile;
        const int32_t *quads = (const int32_t *)(base + layer->indices), *w = (const int32_t *)(base + layer->weights);
        float *out = y + start * layer->out_width;
        sb3s_copy(layer, places, source + (long)start * layer->stride_height * layer->pitch, height, tile);
        for (o = 0; o < layer->out; o++, out += size) {
            /* scale * (unit * sum + lowest * (sum of the row's weights)) + bias */
            const __m512 scale = _mm512_set1_ps(scales[o]), bias = _mm512_set1_ps(b[o]);
            const __m512 shift = _mm512_mul_ps(grid.offset, _mm512_set1_ps(rows[o]));
            __m512i sums[8];
            switch (layer->vectors) {
#define SB3S_CASE(n)                                                                                                      \
    case n:                                                                                                               \
        sb3s_sums_##n((const char *)tile, quads, w, counts[o], sums);                                                     \
        break
                SB3S_CASE(1);
                SB3S_CASE(2);
                SB3S_CASE(3);
                SB3S_CASE(4);
                SB3S_CASE(5);
                SB3S_CASE(6);
                SB3S_CASE(7);
            default:
                sb3s_sums_8((const char *)tile, quads, w, counts[o], sums);
#undef SB3S_CASE
            }
            quads += counts[o];
            w += counts[o];
            for (k = 0; 16 * k < height * layer->out_width; k++) {
                const __mmask16 mask = sb3s_first(height * layer->out_width - 16 * k);
                const __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[k]), grid.unit, shift);
                _mm512_mask_storeu_ps(out + 16 * k, mask, sb3s_finish(&range, relu, _mm512_maskz_fmadd_ps(mask, value, scale, bias)));
            }
        }
    }
    *found = range;
    return sb3s_is_finished(layer);
}
