#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make a sealed table of squares, with mmap where the mount can do that.

usage: producer.py MOUNT NAME COUNT
"""
import struct
import sys

import cachet


def main(mount: str, name: str, count: int) -> None:
    squares = struct.pack(f'={count}Q', *(i * i for i in range(count)))
    with cachet.create(mount) as file:
        file.truncate(len(squares))
        try:
            memory = file.map(write=True)
        except (OSError, ValueError):
            # io=daemon: what is not sealed cannot be mapped shared. ValueError: it is empty.
            file.write(squares, offset=0)
        else:
            memory[:] = squares
            memory.close()  # our own map would stand in the way of the seal
        file.seal()
        file.publish(name)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
