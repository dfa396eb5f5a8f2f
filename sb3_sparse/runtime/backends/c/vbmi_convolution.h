/* Convolutions of bytes for AVX-512 VBMI + VNNI, included by vbmi.h. Four inputs and their four weights make one 32-bit lane of
   vpdpbusd, a quad: four channels at one place, or four pixels of a row where the stride is four, as images lie in memory. A lane
   is an output place, so every quad of weights that exists multiplies a few whole registers, and those that do not cost nothing.

   A tile of output rows is done at a time. Its inputs are copied first, quad by quad, such that no load crosses a cache line.
   plan_convolution.py chooses the tiles. */

static inline __mmask16 sb3s_first(int lanes) { return lanes >= 16 ? 0xffff : lanes <= 0 ? 0 : (__mmask16)((1u << lanes) - 1); }

/* Up to 16 inputs of one channel as integers from 0 to 255. */
static inline __m512i sb3s_integers(const float *x, const uint8_t *pixels, long at, __mmask16 mask, const sb3s_grid *grid) {
    if (pixels) return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, pixels + at));
    return _mm512_cvtps_epi32(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, x + at), grid->inverse, grid->shift));
}

/* Channels to quads of four, split by the phases of the stride: [channels / 4, phases down, phases right, rows, columns, 4]. Only
   inputs that are never negative are padded, so the byte 0 stands for 0. */
static void sb3s_pack(const sb3s_layer *layer, const float *x, const uint8_t *pixels, const sb3s_grid *grid, uint8_t *packed) {
    const int padded = layer->pad_height || layer->pad_width, sh = layer->stride_height, sw = layer->stride_width;
    /* Without padding and stride, a channel is one long row. */
    const int flat = !padded && sh == 1 && sw == 1;
    const int rows = flat ? 1 : layer->height, columns = flat ? layer->height * layer->width : layer->width;
    const long size = (long)layer->height * layer->width;
    const long phase = (long)layer->pitch * ((layer->height + 2 * layer->pad_height + sh - 1) / sh);
    /* No divisions in the loops: they would take most of the time. */
    const int whole = 16 / sw, remainder = 16 % sw, first = layer->pad_width / sw, shift = layer->pad_width % sw;
    unsigned comb = 0;
    int c, i, j, k;
    for (k = 0; k < 16; k += sw) comb |= 1u << k;
    if (padded) memset(packed, 0, 4 * (size_t)layer->phase);
    for (c = 0; c < layer->channels; c += 4, packed += phase * sh * sw) {
        const int missing = c + 4 - layer->channels;
        /* Rows and columns by phase, and their number in it. */
        int down = layer->pad_height % sh, row = layer->pad_height / sh;
        for (i = 0; i < rows; i++) {
            uint8_t *target = packed + phase * sw * down + (long)layer->pitch * row;
            int right = shift, column = first;
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
                for (k = 0; k < sw; k++) {
                    const __mmask16 chosen = (__mmask16)(mask & (comb << k));
                    uint8_t *to = target + phase * right + 4L * column;
                    _mm512_mask_storeu_epi32(to, sb3s_first(__builtin_popcount(chosen)), _mm512_maskz_compress_epi32(chosen, quad));
                    if (++right == sw) right = 0, column++;
                }
                right += remainder;
                column += whole - 1;
                if (right >= sw) right -= sw, column++;
            }
            if (++down == sh) down = 0, row++;
        }
    }
}

/* The inputs of some output rows: for each quad of a window that quad of all their places, one after the other. Of packed inputs
   it may be one stretch, with what lies between the rows; else it is row by row. */
static void sb3s_copy(const sb3s_layer *layer, const int32_t *places, const uint8_t *source, int rows, int32_t *tile) {
    const int width = layer->out_width;
    int quad, i, j;
    for (quad = 0; quad < layer->runs; quad++, tile += 16 * layer->vectors) {
        const uint8_t *row = source + places[quad];
        if (layer->across != width) {
            for (i = 0; i < layer->vectors; i++) _mm512_store_si512(tile + 16 * i, _mm512_loadu_si512(row + 64 * i));
            continue;
        }
        /* What is written beyond a row is overwritten by what comes next. */
        for (i = 0; i < rows; i++, row += layer->pitch) {
            int32_t *target = tile + i * width;
            for (j = 0; j + 16 <= width; j += 16) _mm512_storeu_si512(target + j, _mm512_loadu_si512(row + 4 * j));
            if (j + 4 == width)
                _mm_storeu_si128((__m128i *)(target + j), _mm_loadu_si128((const __m128i *)(row + 4 * j)));
            else if (j < width)
                _mm512_storeu_si512(target + j, _mm512_maskz_loadu_epi32(sb3s_first(width - j), row + 4 * j));
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
    __mmask16 valid[8];
    sb3s_range range;
    sb3s_grid grid;
    int start, o, i, k;
    if (pixels)
        grid.unit = _mm512_set1_ps(1.0f), grid.offset = grid.inverse = grid.shift = _mm512_setzero_ps();
    else
        grid = sb3s_measure(layer, x, found);
    if (layer->phase) {
        sb3s_pack(layer, x, pixels, &grid, (uint8_t *)scratch);
        source = (const uint8_t *)scratch;
    }
    sb3s_clear(&range);
    for (start = 0; start < layer->out_height; start += layer->tile) {
        const int height = layer->out_height - start < layer->tile ? layer->out_height - start : layer->tile;
        const int32_t *quads = (const int32_t *)(base + layer->indices), *w = (const int32_t *)(base + layer->weights);
        float *out = y + start * layer->out_width;
        sb3s_copy(layer, places, source + (long)start * layer->pitch, height, tile);
        /* Lanes that are places of the output. */
        memset(valid, 0, sizeof(valid));
        for (i = 0; i < height; i++)
            for (k = i * layer->across; k < i * layer->across + layer->out_width; k++)
                valid[k / 16] = (__mmask16)(valid[k / 16] | 1u << k % 16);
        for (o = 0; o < layer->out; o++, out = y + (long)o * size + start * layer->out_width) {
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
            for (k = 0; k < layer->vectors; k++) {
                const int count = __builtin_popcount(valid[k]);
                const __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[k]), grid.unit, shift);
                const __m512 done = sb3s_finish(&range, relu, _mm512_maskz_fmadd_ps(valid[k], value, scale, bias));
                _mm512_mask_storeu_ps(out, sb3s_first(count), _mm512_maskz_compress_ps(valid[k], done));
                out += count;
            }
        }
    }
    *found = range;
    return sb3s_is_finished(layer);
}
