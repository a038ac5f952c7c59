static int hidden(int value) { return value + 1; }

const char *helper_file(void) { return __FILE__; }

int helper_next(int value) { return hidden(value); }
