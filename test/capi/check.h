/* Checks for tests that are written in C: they print and count, and NDEBUG does not remove them. */
#pragma once

#include <stdio.h>

#define CHECK_C(condition)                                                          \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                                   \
    }                                                                               \
  } while (0)
