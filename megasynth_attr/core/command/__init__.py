"""The command line of every program: ``key=value`` words become one checked dataclass, and ``--help`` comes from it.

words.py splits words, reading.py reads a text as the type of its key, keys.py says what is declared, settings.py fills
the dataclass, layers.py merges files under words, help.py writes a section of ``--help``, program.py does all of it.

* A leading ``--`` is dropped. ``config=file.yaml`` holds further keys: defaults < file < words.
* Text is literal: a key whose type is text takes the characters as typed (``out=run #3``, ``images=007``, ``x=yes``).
* Whole numbers are decimal (``010`` is ten); numbers are finite, e.g. ``0.5`` or ``1e-3``; switches true or false.
* Lists are ``[a,b]``; a single item needs no brackets. A list of paths takes one word per path: ``data=a data=b``.
* Otherwise the last word for a key counts. YAML files keep YAML's rules. Nothing is interpolated in words or files.
"""
