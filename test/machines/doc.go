// Package machines runs virtual machines for tests that need another kernel
// than the one they run on, or a whole machine: QEMU with Debian's cloud kernel,
// under software emulation, so that it works inside a virtual machine too.
//
// A small machine boots in seconds into a RAM disk with the programs that the
// tests call, copied from the machine it is made on. What runs in a machine is
// told to it over a virtio port (package wire); it needs no network for that.
package machines
