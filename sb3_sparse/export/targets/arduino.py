"""A library for Arduino, with a sketch that runs its self test. The code is C, so AVR boards keep the tables in flash."""

from sb3_sparse.export.targets.parts import PUBLIC, SOURCE, Target

_PROPERTIES = """\
name=@LIBRARY@
version=1.0.0
author=sb3_sparse
maintainer=sb3_sparse
sentence=@SUMMARY@
paragraph=Written by sb3_sparse @VERSION@.
category=Data Processing
url=https://stable-baselines3.readthedocs.io
architectures=*
includes=@LIBRARY@.h
"""

_SKETCH = """\
/* Runs the self test once, then acts and says how long that took. The light blinks slowly if the self test has passed. */
#include <@LIBRARY@.h>

@DECLARE@
static int failures;

void setup() {
    pinMode(LED_BUILTIN, OUTPUT);
    Serial.begin(115200);
    failures = @NAME@_self_test();
    Serial.print(failures);
    Serial.println(F(" test vectors fail"));
@REMEMBERS@    @NAME@_reset(&state);
}

void loop() {
    /* Read the sensors into the observation here. */
    const unsigned long start = micros();
    @CALL@
    const unsigned long elapsed = micros() - start;
    Serial.print(elapsed);
    Serial.println(F(" us"));
    digitalWrite(LED_BUILTIN, HIGH);
    delay(failures ? 50 : 500);
    digitalWrite(LED_BUILTIN, LOW);
    delay(failures ? 50 : 500);
}
"""

ARDUINO: Target = {
    "@LIBRARY@/library.properties": _PROPERTIES,
    "@LIBRARY@/src/@LIBRARY@.h": PUBLIC,
    "@LIBRARY@/src/@NAME@_code.h": "@CODE@",
    "@LIBRARY@/src/@LIBRARY@.c": f"""\
@INTEGERS@/* The hidden layers in integers; without this line in floats. */
@INTEGERS@#define @UPPER@_INTEGER
{SOURCE}""",
    "@LIBRARY@/examples/SelfTest/SelfTest.ino": _SKETCH,
}
