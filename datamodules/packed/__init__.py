"""Packed data sets: many images in each file (a chunk), in litdata's format, on a disk or in an object store.

DIR/packed.json          what is in it: see `index.PackedIndex`; written last
DIR/train/images.json    names, labels and contents of the images, and the chunk of each: see `index.SplitIndex`
DIR/train/index.json     litdata's own list of the chunks: its `StreamingDataset` reads the folder too
DIR/train/chunk-0-0.bin  the first chunk: see `chunks`
"""
