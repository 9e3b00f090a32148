"""Cloud TPUs: what a run needs of a slice, before there is one."""
