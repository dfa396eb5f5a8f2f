/* The pool of a convolution: the largest number or the mean of each window. The padding is at most half of the window, so every
   window has an element of x; in a mean it counts as zeros. */
static void sb3s_pool(const sb3s_layer *layer, const float *restrict x, float *restrict y) {
    const int height = layer->out_height, width = layer->out_width;
    const int rows = (height + 2 * layer->pool_top - layer->pool_height) / layer->pool_down + 1;
    const int columns = (width + 2 * layer->pool_side - layer->pool_width) / layer->pool_right + 1;
    const float share = 1.0f / (float)(layer->pool_height * layer->pool_width);
    int c, i, j, k, l;
    for (c = 0; c < layer->out; c++, x += (long)height * width)
        for (i = 0; i < rows; i++)
            for (j = 0; j < columns; j++) {
                const int top = i * layer->pool_down - layer->pool_top, side = j * layer->pool_right - layer->pool_side;
                const int bottom = top + layer->pool_height < height ? top + layer->pool_height : height;
                const int end = side + layer->pool_width < width ? side + layer->pool_width : width;
                const int start = top < 0 ? 0 : top, first = side < 0 ? 0 : side;
                float largest = x[(long)start * width + first], sum = 0.0f;
                if (layer->pool_mean) {
                    for (k = start; k < bottom; k++)
                        for (l = first; l < end; l++) sum += x[(long)k * width + l];
                    *y++ = sum * share;
                    continue;
                }
                for (k = start; k < bottom; k++)
                    for (l = first; l < end; l++) {
                        const float v = x[(long)k * width + l];
                        largest = v > largest ? v : largest;
                    }
                *y++ = largest;
            }
}
