"""
The C code of integer arithmetic that is the same for every policy.

CONSTANTS are what a layer begins with, in as many bytes as START says. RESCALE brings a sum to the next layer's inputs with
the multiplier and the offset of its row, which take END bytes. LIMIT is the largest output.
"""

from textwrap import indent

#: To units of the next layer that fit the multipliers, and to the nearest integer of a grid that training has fixed.
FREE = {
    "CONSTANTS": "const int32_t factor = p[0] | (uint16_t)p[1] << 8;\n    const int shift = p[2];",
    "START": 3,
    "RESCALE": "((int32_t)(((int64_t)sum * multiplier) >> 32) >> shift) + offset",
}
FIXED = {
    "CONSTANTS": "const int32_t factor = (int32_t)(p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 "
    "| (uint32_t)p[3] << 24);\n"
    "    const int shift = p[4], finer = p[5];",
    "START": 6,
    "RESCALE": "(int32_t)(((int64_t)sum * multiplier + (int64_t)offset * ((int64_t)1 << finer)) >> shift)",
}

#: The end of a row: its sum, or its activation. With factor 0 the sums go out in 32 bits.
_TAIL = """\
        if (factor == 0) {
            *sums++ = sum;
            continue;
        }
        {
            const int32_t multiplier = @MULTIPLIER@, offset = @OFFSET@;
            sum = @RESCALE@;
        }
        p += @END@;
        sum = sum > @LIMIT@ ? @LIMIT@ : sum;
        *y++ = (int16_t)(sum < 0 ? 0 : sum);
"""
_BEGIN = """\
    @CONSTANTS@
    int16_t *y = (int16_t *)output;
    int32_t *sums = (int32_t *)output;
"""

#: A sparse linear layer, one stream of bytes: factor, shift; the weights, if they are packed; runs (entries in a row, rows);
#: for each row its entries (column and, unless they are packed, weight), its multiplier and its offset.
ROWS = f"""
static const uint8_t SB3S_FLASH *@FUNCTION@(const uint8_t SB3S_FLASH *p, @SHAPE@const int16_t *x, void *output) {{
{_BEGIN}    unsigned n;@STATE@
    for (p += @START@@PACKED@; (n = p[@RUN@]) != 0;) {{
        const unsigned size = @COUNT@ * @ENTRY@;
        p += @RUN@ + 1;
        for (; n != 0; n--) {{
            const uint8_t SB3S_FLASH *end = p + size;
            int32_t sum = 0;
            for (; p != end; p += @ENTRY@) sum += @WEIGHT@ * x[@COLUMN@];
{indent(_TAIL, "    ")}        }}
    }}
    return p + @RUN@ + 1;
}}
"""

#: A dense linear layer: factor, shift; the weights; for each row its multiplier and its offset.
DENSE = f"""
static const uint8_t SB3S_FLASH *@FUNCTION@(const uint8_t SB3S_FLASH *p, @SHAPE@const int16_t *x, void *output) {{
{_BEGIN}    unsigned k;@STATE@
    for (p += @START@@PACKED@; rows != 0; rows--) {{
        int32_t sum = 0;
        for (k = 0; k < columns; k++) sum += @WEIGHT@ * x[k];
{_TAIL}    }}
    return p;
}}
"""

#: A convolution, one stream of bytes: factor, shift; for each channel the count, the entries (offset from the
#: corner of a window, weight), its multiplier and its offset. With factor 0 there are neither, and the sums go out in 32 bits.
CONVOLUTION = """
static const uint8_t SB3S_FLASH *@FUNCTION@(const uint8_t SB3S_FLASH *p, unsigned channels, unsigned height, unsigned width,
                                            unsigned down, unsigned right, const int16_t *x, void *output) {
    @CONSTANTS@
    int16_t *y = (int16_t *)output;
    int32_t *sums = (int32_t *)output;
    unsigned k, i, j, l;
    for (p += @START@; channels != 0; channels--) {
        const uint8_t SB3S_FLASH *entries = p + 2;
        int32_t multiplier = 0, offset = 0;
        k = p[0] | (uint16_t)p[1] << 8;
        p = entries + k * @ENTRY@;
        if (factor != 0) {
            multiplier = @MULTIPLIER@;
            offset = @OFFSET@;
            p += @END@;
        }
        for (i = 0; i < height; i++)
            for (j = 0; j < width; j++) {
                const int16_t *corner = x + i * down + j * right;
                const uint8_t SB3S_FLASH *q = entries;
                int32_t sum = 0;
                for (l = k; l != 0; l--, q += @ENTRY@) sum += @WEIGHT@ * corner[@COLUMN@];
                if (factor == 0) {
                    *sums++ = sum;
                    continue;
                }
                sum = @RESCALE@;
                sum = sum > @LIMIT@ ? @LIMIT@ : sum;
                *y++ = (int16_t)(sum < 0 ? 0 : sum);
            }
    }
    return p;
}
"""

#: A float that has been divided by its unit to the nearest integer.
ROUND = """
static inline int16_t @NAME@_round(float x) {
    /* Positive, so that the cast rounds down; NaN becomes the smallest integer. */
    x += 32768.5f;
    x = x > @LOW@ ? x : @LOW@;
    x = x < @HIGH@ ? x : @HIGH@;
    return (int16_t)((int32_t)x - 32768);
}
"""
