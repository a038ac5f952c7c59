"""Programs that stand in a build's way to its compilers: toolchain copies them into the box, and they run there."""
