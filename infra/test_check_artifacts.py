"""Tests of the check of built binaries, with made headers."""

import struct
import unittest

import check_artifacts


def elf(machine, text=b""):
    return b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", machine) + text


class CheckArtifactsTest(unittest.TestCase):
    def problems(self, binary, expected=None):
        return list(check_artifacts.problems(binary, expected))

    def test_a_binary_of_the_functions_architecture_can_start(self):
        self.assertEqual([], self.problems(elf(183, b"GLIBC_2.17 GLIBC_2.34"), "arm64"))
        self.assertEqual([], self.problems(elf(62), "x86_64"))
        self.assertEqual([], self.problems(elf(62)))

    def test_a_binary_of_another_architecture_cannot_start(self):
        self.assertEqual(["the binary is for x86_64, the function for arm64"], self.problems(elf(62), "arm64"))
        self.assertEqual(["the binary is for machine 243, the function for x86_64 or arm64"], self.problems(elf(243)))
        self.assertEqual(1, len(self.problems(b"#!/bin/sh")))

    def test_a_binary_that_needs_a_newer_glibc_cannot_start(self):
        self.assertEqual(["provided.al2023 has only glibc 2.34"], self.problems(elf(183, b"GLIBC_2.35"), "arm64"))


if __name__ == "__main__":
    unittest.main()
