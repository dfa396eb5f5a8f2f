"""A component for ESP-IDF, with a project that runs its self test. Checked against the published layout, not on hardware."""

from sb3_sparse.export.targets.parts import PUBLIC, SOURCE, Target

_LISTS = """\
idf_component_register(SRCS "src/@LIBRARY@.c" INCLUDE_DIRS "include")
@INTEGERS@if(CONFIG_@UPPER@_POLICY_INTEGER)
@INTEGERS@  target_compile_definitions(${COMPONENT_LIB} PRIVATE @UPPER@_INTEGER)
@INTEGERS@endif()
"""

_KCONFIG = """\
@INTEGERS@menu "@LIBRARY@"
@INTEGERS@    config @UPPER@_POLICY_INTEGER
@INTEGERS@        bool "Hidden layers in integers"
@INTEGERS@        default y
@INTEGERS@endmenu
"""

_MAIN = """\
#include <stdio.h>

#include "@LIBRARY@.h"

@DECLARE@

void app_main(void) {
    printf("%d test vectors fail\\n", @NAME@_self_test());
@REMEMBERS@    @NAME@_reset(&state);
    @CALL@
    printf("action %g\\n", (double)action[0]);
}
"""

ESP_IDF: Target = {
    "@LIBRARY@/CMakeLists.txt": _LISTS,
    "@LIBRARY@/Kconfig": _KCONFIG,
    "@LIBRARY@/idf_component.yml": """\
version: "1.0.0"
description: "@SUMMARY@ Written by sb3_sparse @VERSION@."
dependencies:
  idf: ">=5.0"
""",
    "@LIBRARY@/include/@LIBRARY@.h": PUBLIC,
    "@LIBRARY@/include/@NAME@_code.h": "@CODE@",
    "@LIBRARY@/src/@LIBRARY@.c": SOURCE,
    "@LIBRARY@/examples/self_test/CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.16)
set(EXTRA_COMPONENT_DIRS "${CMAKE_CURRENT_LIST_DIR}/../..")
include($ENV{IDF_PATH}/tools/cmake/project.cmake)
project(self_test)
""",
    "@LIBRARY@/examples/self_test/main/CMakeLists.txt": """\
idf_component_register(SRCS "main.c" REQUIRES @LIBRARY@)
""",
    "@LIBRARY@/examples/self_test/main/main.c": _MAIN,
}
