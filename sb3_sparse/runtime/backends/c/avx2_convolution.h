/* Convolutions of bytes for AVX2 + FMA, included by avx2.h. Inputs are packed in quads of bytes and done in tiles as by
   vbmi_convolution.h; a lane of a tile has two of the four bytes in 16 bits, the first and the third or the second and the fourth,
   for a product with two weights in 16 bits. */

/* All bits of the first lanes. */
static inline __m256i sb3s_first(int lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Up to eight inputs of one channel as integers from 0 to 255. */
static inline __m256i sb3s_integers(const float *x, const uint8_t *pixels, long at, int count, const sb3s_grid *grid) {
    const __m256i first = sb3s_first(count);
    if (pixels) {
        uint64_t bytes = 0;
        memcpy(&bytes, pixels + at, count < 8 ? (size_t)count : 8);
        return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
    }
    return _mm256_and_si256(
        _mm256_cvtps_epi32(_mm256_fmsub_ps(_mm256_maskload_ps(x + at, first), grid->inverse, grid->shift)), first);
}

/* Channels to quads of four, split by the phases of the stride: [channels / 4, phases down, phases right, rows, columns, 4]. Only
   inputs that are never negative are padded, so the byte 0 stands for 0. */
static void sb3s_pack(const sb3s_layer *layer, const float *x, const uint8_t *pixels, const sb3s_grid *grid, int32_t *packed) {
    const int sh = layer->stride_height, sw = layer->stride_width, pitch = layer->pitch / 4;
    const long size = (long)layer->height * layer->width;
    const long phase = (long)pitch * ((layer->height + 2 * layer->pad_height + sh - 1) / sh);
    int c, i, j, k;
    if (layer->pad_height || layer->pad_width) memset(packed, 0, 4 * (size_t)layer->phase);
    for (c = 0; c < layer->channels; c += 4, packed += phase * sh * sw) {
        const int channels = layer->channels - c < 4 ? layer->channels - c : 4;
        /* Rows and columns by phase, and their number in it. */
        int down = layer->pad_height % sh, row = layer->pad_height / sh;
        for (i = 0; i < layer->height; i++) {
            int32_t *const target = packed + phase * sw * down + (long)pitch * row;
            int right = layer->pad_width % sw, column = layer->pad_width / sw;
            for (j = 0; j < layer->width; j += 8) {
                const int count = layer->width - j < 8 ? layer->width - j : 8;
                const long at = c * size + (long)i * layer->width + j;
                __m256i quad = sb3s_integers(x, pixels, at, count, grid);
                int32_t quads[8];
                for (k = 1; k < channels; k++)
                    quad = _mm256_or_si256(quad, _mm256_slli_epi32(sb3s_integers(x, pixels, at + k * size, count, grid), 8 * k));
                _mm256_storeu_si256((__m256i *)quads, quad);
                for (k = 0; k < count; k++) {
                    target[phase * right + column] = quads[k];
                    if (++right == sw) right = 0, column++;
                }
            }
            if (++down == sh) down = 0, row++;
        }
    }
}

/* The inputs of some output rows: for each pair of a window that pair of all their places, one after the other. Of packed inputs
   it may be one stretch, with what lies between the rows; else it is row by row. */
static void sb3s_copy(const sb3s_layer *layer, const int32_t *places, const uint8_t *source, int rows, int32_t *tile) {
    const __m256i mask = _mm256_set1_epi32(0x00ff00ff);
    const int flat = layer->across != layer->out_width, width = flat ? 16 * layer->vectors : layer->out_width;
    const __m256i last = sb3s_first(width % 8);
    int pair, i, j;
    for (pair = 0; pair < layer->runs; pair++, tile += 16 * layer->vectors) {
        const uint8_t *row = source + places[pair] / 2;
        const __m128i shift = _mm_cvtsi32_si128(8 * (places[pair] % 2));
#define SB3S_PAIRS(quads) _mm256_and_si256(_mm256_srl_epi32(quads, shift), mask)
        /* What is written beyond a row is overwritten by what comes next. */
        for (i = 0; i < (flat ? 1 : rows); i++, row += layer->pitch) {
            int32_t *target = tile + i * width;
            for (j = 0; j + 8 <= width; j += 8)
                _mm256_storeu_si256((__m256i *)(target + j), SB3S_PAIRS(_mm256_loadu_si256((const __m256i *)(row + 4 * j))));
            if (j < width)
                _mm256_storeu_si256((__m256i *)(target + j), SB3S_PAIRS(_mm256_maskload_epi32((const int *)(row + 4 * j), last)));
        }
#undef SB3S_PAIRS
    }
}

/* One output channel of a tile: its pairs of weights, times so many times 16 lanes each. */
#define SB3S_SUMS(n)                                                                                                      \
    static inline void sb3s_sums_##n(const char *tile, const int32_t *pairs, const int32_t *w, int count, __m256i *sums) { \
        __m256i sum[2 * n];                                                                                               \
        int k;                                                                                                            \
        for (k = 0; k < 2 * n; k++) sum[k] = _mm256_setzero_si256();                                                      \
        for (; count; count--, pairs++, w++) {                                                                            \
            const __m256i weights = _mm256_set1_epi32(*w);                                                                \
            const __m256i *inputs = (const __m256i *)(tile + *pairs);                                                     \
            for (k = 0; k < 2 * n; k++)                                                                                   \
                sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(_mm256_load_si256(inputs + k), weights));             \
        }                                                                                                                 \
        for (k = 0; k < 2 * n; k++) sums[k] = sum[k];                                                                     \
    }
SB3S_SUMS(1)
SB3S_SUMS(2)
SB3S_SUMS(3)
SB3S_SUMS(4)
SB3S_SUMS(5)
SB3S_SUMS(6)
#undef SB3S_SUMS

/* Of all lanes of a tile, six registers of 16 lanes at a time: there are 16 registers of eight. */
static void sb3s_sums(const char *tile, const int32_t *pairs, const int32_t *w, int count, int vectors, __m256i *sums) {
    for (; vectors > 0; vectors -= 6, tile += 6 * 64, sums += 12) {
        switch (vectors) {
#define SB3S_CASE(n)                                                                                                      \
    case n:                                                                                                               \
        sb3s_sums_##n(tile, pairs, w, count, sums);                                                                       \
        break
            SB3S_CASE(1);
            SB3S_CASE(2);
            SB3S_CASE(3);
            SB3S_CASE(4);
            SB3S_CASE(5);
        default:
            sb3s_sums_6(tile, pairs, w, count, sums);
#undef SB3S_CASE
        }
    }
}

/* A whole layer, from floats, or from pixels if there are any. They are read where they are if the quads are pixels of a row. */
static int sb3s_patches(const sb3s_layer *layer, const char *base, const uint8_t *pixels, const float *restrict x,
                        float *restrict y, float *restrict scratch, sb3s_range *found) {
    const int32_t *places = (const int32_t *)(base + layer->places), *counts = (const int32_t *)(base + layer->counts);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *rows = (const float *)(base + layer->sums);
    const int size = layer->out_height * layer->out_width, relu = layer->activation == SB3S_RELU, width = layer->out_width;
    const uint8_t *source = pixels;
    int32_t *tile = (int32_t *)scratch + layer->phase;
    sb3s_range range;
    sb3s_grid grid;
    int start, o, i, j, k;
    if (pixels)
        grid.unit = _mm256_set1_ps(1.0f), grid.offset = grid.inverse = grid.shift = _mm256_setzero_ps();
    else
        grid = sb3s_measure(layer, x, found);
    if (layer->phase) {
        sb3s_pack(layer, x, pixels, &grid, (int32_t *)scratch);
        source = (const uint8_t *)scratch;
    }
    sb3s_clear(&range);
    for (start = 0; start < layer->out_height; start += layer->tile) {
        const int height = layer->out_height - start < layer->tile ? layer->out_height - start : layer->tile;
        const int32_t *pairs = (const int32_t *)(base + layer->indices), *w = (const int32_t *)(base + layer->weights);
        /* Lanes that are places of the output, and the outputs of all lanes. */
        int32_t valid[128] = {0};
        float outputs[128 + 8];
        float *out = y + start * width;
        sb3s_copy(layer, places, source + (long)start * layer->pitch, height, tile);
        for (i = 0; i < height; i++)
            for (k = 0; k < width; k++) valid[i * layer->across + k] = -1;
        for (o = 0; o < layer->out; o++, out = y + (long)o * size + start * width) {
            /* scale * (unit * sum + lowest * (sum of the row's weights)) + bias */
            const __m256 scale = _mm256_set1_ps(scales[o]), bias = _mm256_set1_ps(b[o]);
            const __m256 shift = _mm256_mul_ps(grid.offset, _mm256_set1_ps(rows[o]));
            __m256i sums[16];
            sb3s_sums((const char *)tile, pairs, w, counts[o], layer->vectors, sums);
            pairs += counts[o];
            w += counts[o];
            for (k = 0; k < 2 * layer->vectors; k++) {
                const __m256 value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[k]), grid.unit, shift);
                const __m256 lanes = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(valid + 8 * k)));
                const __m256 done = _mm256_and_ps(_mm256_fmadd_ps(value, scale, bias), lanes);
                _mm256_storeu_ps(outputs + 8 * k, sb3s_finish(&range, relu, done));
            }
            /* What is written beyond a row is overwritten by the next one; nothing may be beyond the last. */
            for (i = 0; i < height; i++, out += width) {
                const float *row = outputs + i * layer->across;
                const int whole = i < height - 1 ? width : width & ~7;
                for (j = 0; j < whole; j += 8) _mm256_storeu_ps(out + j, _mm256_loadu_ps(row + j));
                for (; j < width; j++) out[j] = row[j];
            }
        }
    }
    *found = range;
    return sb3s_is_finished(layer);
}
