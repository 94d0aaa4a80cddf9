"""Where material images and pictures come from: the bank, the procedural materials, MatSynth, picture folders."""
