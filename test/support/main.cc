// The entry point of every Catch2 program of ours.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
