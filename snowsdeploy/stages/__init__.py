"""The stages as functions on values, and the job that joins them to files.

    inputs    strings, paths and Python objects -> Program, Samples
    prune     Program, Samples -> Pruned
    export    Pruned -> ONNX files, dense and sparse, in each precision; packages of other formats
    validate  Pruned, files, Samples -> Report
    plan      Program, Samples -> what pruning will cost
    inspect   a file -> its layout
    job       the main job and its stages on a run directory, whose files run_files reads and writes
    compare   runs the main job several times
    debug     explains what a run has

Exporters and writers of formats come in as values, so that the library never imports them.
"""
