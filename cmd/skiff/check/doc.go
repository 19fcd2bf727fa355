// Package check looks at a machine before and after Skiff is installed on it and
// says of each thing that matters whether it is right, and if not what to type.
//
// An area (kernel, network, disk, ...) is one file and one function that reads
// the machine through a host, so that tests put a made-up machine in its place.
// Areas run side by side; nothing on the machine is changed, and what only root
// may see is left out and named.
package check
