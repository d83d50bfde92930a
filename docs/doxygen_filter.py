#!/usr/bin/env python3
"""Doxygen's input filter: turns the plain comments of a public header into documentation.

The headers are written for readers: a comment stands above what it is about, or behind it on the same line; one above
neighbours without a blank line between is about all of them, and one behind several names of a line about each. No
markup means anything in them. Lines keep their numbers, but for one at the top.
"""
import re
import sys

COMMENT = re.compile(r"^(\s*)// ?(.*)$")
TRAILING = re.compile(r'^(\s*[^/\s](?:[^"/]|"[^"]*"|/(?!/))*?)(\s+)// ?(.*)$')
COMPOUND = re.compile(r"^\s*(template <.*> *)?(struct|class|enum|union|namespace|extern)\b.*\{$")


def plain(text):
    """Escapes what Doxygen would take for markup."""
    return re.sub(r'([\\@<>#&$%"*])', r"\\\1", text).replace("::", "\\::")


def names_several(code):
    """Whether a line declares several variables."""
    depth, comma = 0, False
    for character in code:
        depth += (character in "({[<") - (character in ")}]>")
        comma = comma or (depth == 0 and character == ",")
    return comma and code.rstrip().endswith(";") and "(" not in code.split(",")[0]


def indent(line):
    return len(line) - len(line.lstrip())


class Lines:
    """The lines of one header, rewritten in place."""

    def __init__(self, text):
        self.lines = text.splitlines()

    def comments(self):
        """Comments become documentation."""
        column = None  # of the comment behind the line before
        for i, line in enumerate(self.lines):
            above, behind = COMMENT.match(line), TRAILING.match(line)
            if above and len(above[1]) == column:
                self.lines[i] = f"{above[1]}///< {plain(above[2])}"
            elif above:
                column = None
                self.lines[i] = f"{above[1]}/// {plain(above[2])}"
            elif behind and not behind[1].lstrip().startswith(("}", "#")):
                column = behind.end(2)
                self.lines[i] = f"{behind[1]} ///< {plain(behind[3])}"
            else:
                column = None

    def several_names(self):
        """A comment behind several names goes in front of them, in a group whose members share it."""
        for i, line in enumerate(self.lines):
            code, arrow, text = line.partition(" ///< ")
            if not arrow or not names_several(code):
                continue
            following = i + 1
            while following < len(self.lines) and self.lines[following].lstrip().startswith("///<"):
                text += " " + self.lines[following].lstrip()[5:]
                self.lines[following] = ""
                following += 1
            self.lines[i] = f"/** \\{{ */ /** {text} */ {code} /** \\}} */"

    def groups(self):
        """Neighbours below a comment share it."""
        i = 0
        while i < len(self.lines):
            if not re.match(r"^\s*/// ", self.lines[i]):
                i += 1
                continue
            first, column = i, indent(self.lines[i])
            while i < len(self.lines) and self.lines[i].lstrip().startswith("/// "):
                i += 1
            last = i
            while last < len(self.lines) and self.continues(self.lines[last], column):
                last += 1
            body = self.lines[i:last]
            if body and not any(COMPOUND.match(line) or line.startswith("#") for line in body):
                self.lines[first] = "/** \\{ */ " + self.lines[first]
                self.lines[last - 1] = self.closed(self.lines[last - 1])
                i = last

    @staticmethod
    def continues(line, column):
        code = line.lstrip()
        return bool(code) and indent(line) >= column and not code.startswith(("/// ", "/** ", "private:", "}"))

    @staticmethod
    def closed(line):
        code, arrow, text = line.partition("///< ")
        if not arrow:
            return line + " /** \\} */"
        return f"{code}/**< {text} */ /** \\}} */"


def cpp(text):
    header = Lines(text)
    header.comments()
    header.several_names()
    header.groups()
    return "\n".join(["/// \\file"] + header.lines)


def c(text):
    """C comments: /* above */ and behind /* the line */."""
    text = re.sub(r"(\S[^\n]*?) /\* (.*?) \*/", lambda m: f"{m[1]} /**< {plain(m[2])} */", text)
    text = re.sub(r"^/\* (.*?)\*/", lambda m: f"/** \\file\n{plain(m[1])}*/", text, count=1, flags=re.S)
    return re.sub(r"^/\* (.*?)\*/", lambda m: f"/** {plain(m[1])}*/", text, flags=re.S | re.M)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    print(c(text) if sys.argv[1].endswith("/c.h") else cpp(text))


main()
