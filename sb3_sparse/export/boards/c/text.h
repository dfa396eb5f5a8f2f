/* A number in decimal digits, and a line's end. */
static const char *decimal(uint32_t number) {
    static char text[12];
    int i = 10;
    text[i] = '\n';
    do text[--i] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    return text + i;
}
