"""A C library for CMake, with a test that ``ctest`` runs."""

from sb3_sparse.export.targets.parts import PUBLIC, SOURCE, Target

_LISTS = """\
cmake_minimum_required(VERSION 3.13)
project(@LIBRARY@ LANGUAGES C)

add_library(@LIBRARY@ src/@LIBRARY@.c)
target_include_directories(@LIBRARY@ PUBLIC
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
set_target_properties(@LIBRARY@ PROPERTIES C_STANDARD 99 POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  target_compile_options(@LIBRARY@ PRIVATE -O2)
endif()
@INTEGERS@
@INTEGERS@option(@UPPER@_INTEGER "Hidden layers in integers: for processors without a floating-point unit" OFF)
@INTEGERS@if(@UPPER@_INTEGER)
@INTEGERS@  target_compile_definitions(@LIBRARY@ PRIVATE @UPPER@_INTEGER)
@INTEGERS@endif()
@SIMD@
@SIMD@option(@UPPER@_SIMD "8-bit hidden activations in SIMD registers of this computer" OFF)
@SIMD@if(@UPPER@_SIMD)
@SIMD@  target_compile_definitions(@LIBRARY@ PRIVATE @UPPER@_SIMD)
@SIMD@  target_compile_options(@LIBRARY@ PRIVATE -O3 -march=native)
@SIMD@endif()

install(TARGETS @LIBRARY@ EXPORT @LIBRARY@-config ARCHIVE DESTINATION lib LIBRARY DESTINATION lib)
install(DIRECTORY include/ DESTINATION include)
install(EXPORT @LIBRARY@-config DESTINATION lib/cmake/@LIBRARY@)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  include(CTest)
  if(BUILD_TESTING)
    add_executable(@LIBRARY@_self_test test/self_test.c)
    target_link_libraries(@LIBRARY@_self_test @LIBRARY@)
    add_test(NAME @LIBRARY@_self_test COMMAND @LIBRARY@_self_test)
  endif()
endif()
"""

_TEST = """\
/* Compares the actions of the test vectors with those that numpy has computed. */
#include "@LIBRARY@.h"

#include <stdio.h>

int main(void) {
    const int failures = @NAME@_self_test();
    printf("%d test vectors fail\\n", failures);
    return failures != 0;
}
"""

_README = """\
# @LIBRARY@

@SUMMARY@ Build the library and run its self test:

    cmake -B build && cmake --build build && ctest --test-dir build

In a project of yours:

    add_subdirectory(@LIBRARY@)
    target_link_libraries(robot @LIBRARY@)

and in its code:

```c
#include "@LIBRARY@.h"

@DECLARE@

void step(void) {
    @CALL@
}
```
@REMEMBERS@
@REMEMBERS@Where an episode begins, call `@NAME@_reset(&state)`.
@INTEGERS@
@INTEGERS@With `-D@UPPER@_INTEGER=ON` the hidden layers are computed in integers.
@SIMD@
@SIMD@With `-D@UPPER@_SIMD=ON` hidden activations have 8 bits, in SIMD registers of the computer that compiles: AVX-512 VBMI,
@SIMD@AVX2 or NEON of 64-bit ARM.
"""

CMAKE: Target = {
    "@LIBRARY@/CMakeLists.txt": _LISTS,
    "@LIBRARY@/include/@LIBRARY@.h": PUBLIC,
    "@LIBRARY@/include/@NAME@_code.h": "@CODE@",
    "@LIBRARY@/src/@LIBRARY@.c": SOURCE,
    "@LIBRARY@/test/self_test.c": _TEST,
    "@LIBRARY@/README.md": _README,
}
