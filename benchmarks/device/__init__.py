"""Parts of the GPU benchmarks, which import nothing of a GPU before they run."""
