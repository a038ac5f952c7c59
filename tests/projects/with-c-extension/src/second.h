int second(int half);
const char *second_path(void);
