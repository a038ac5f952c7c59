#include <stdexcept>

namespace {
struct Counter {
  int value;
  explicit Counter(int start) : value(start) {}
};
Counter counter(41);
}  // namespace

extern "C" const char *helper_file() { return __FILE__; }

extern "C" int helper_next() {
  if (counter.value < 0) {
    throw std::runtime_error(__FILE__);
  }
  return ++counter.value;
}
