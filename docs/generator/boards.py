"""The table of what an actor takes on boards, for the guide."""

from sb3_sparse.export.boards import BOARDS

from .markdown import number, table
from .stored import stored

#: A chip with each processor, and its clock in MHz.
CHIPS = {
    "m4f": ("nRF52840", 64),
    "m3": ("STM32F103", 72),
    "m0+": ("RP2040", 133),
    "rv32imc": ("ESP32-C3", 160),
    "avr": ("ATmega2560", 16),
}


def boards() -> str:
    """
    :return: The table: flash, memory and time of actors of two sizes
    """
    rows = []
    for board, (chip, clock) in CHIPS.items():
        cells = []
        for found in (stored("mcu_small"), stored("mcu")):
            key = f"90/{board}/w8a16"
            cells += [
                number(found["flash"][key] + found["library"][key]),
                number(found["ram"][key] + found["stack"][key]),
                f"{'' if BOARDS[board].unit == 'cycles' else '> '}{number(found['instructions'][key] / clock)}",
            ]
        rows.append((BOARDS[board].title, f"{chip}, {clock} MHz", *cells))
    columns = [f"{size}: {column}" for size in ("64-64", "256-256") for column in ("flash", "memory", "µs")]
    return table(("processor", "for example", *columns), rows, align="llrrrrrr")
