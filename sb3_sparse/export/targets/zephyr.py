"""A module for Zephyr, with a sample that runs its self test. Checked against the published layout, not on hardware."""

from sb3_sparse.export.targets.parts import PUBLIC, SOURCE, Target

_LISTS = """\
if(CONFIG_@UPPER@_POLICY)
  zephyr_include_directories(include)
  zephyr_library()
  zephyr_library_sources(src/@LIBRARY@.c)
@INTEGERS@  if(CONFIG_@UPPER@_POLICY_INTEGER)
@INTEGERS@    zephyr_library_compile_definitions(@UPPER@_INTEGER)
@INTEGERS@  endif()
endif()
"""

_KCONFIG = """\
config @UPPER@_POLICY
	bool "The policy @NAME@"
@INTEGERS@
@INTEGERS@config @UPPER@_POLICY_INTEGER
@INTEGERS@	bool "Hidden layers in integers"
@INTEGERS@	depends on @UPPER@_POLICY
@INTEGERS@	default y
"""

_MAIN = """\
#include <zephyr/sys/printk.h>

#include "@LIBRARY@.h"

@DECLARE@

int main(void) {
    printk("%d test vectors fail\\n", @NAME@_self_test());
@REMEMBERS@    @NAME@_reset(&state);
    @CALL@
    printk("action in thousandths: %d\\n", (int)(1000 * action[0]));
    return 0;
}
"""

ZEPHYR: Target = {
    "@LIBRARY@/zephyr/module.yml": """\
name: @LIBRARY@
build:
  cmake: .
  kconfig: Kconfig
""",
    "@LIBRARY@/CMakeLists.txt": _LISTS,
    "@LIBRARY@/Kconfig": _KCONFIG,
    "@LIBRARY@/include/@LIBRARY@.h": PUBLIC,
    "@LIBRARY@/include/@NAME@_code.h": "@CODE@",
    "@LIBRARY@/src/@LIBRARY@.c": SOURCE,
    "@LIBRARY@/samples/self_test/CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.20)
list(APPEND EXTRA_ZEPHYR_MODULES ${CMAKE_CURRENT_SOURCE_DIR}/../..)
find_package(Zephyr REQUIRED HINTS $ENV{ZEPHYR_BASE})
project(self_test)
target_sources(app PRIVATE src/main.c)
""",
    "@LIBRARY@/samples/self_test/prj.conf": "CONFIG_@UPPER@_POLICY=y\n",
    "@LIBRARY@/samples/self_test/src/main.c": _MAIN,
}
