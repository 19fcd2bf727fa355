package volume

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"
)

// noswapSince is the first Linux whose tmpfs can be kept out of swap, by the
// kubelet's reckoning.
const noswapSince = "6.4"

// tmpfsOptions are those of a tmpfs of a size in bytes for what should stay in
// memory.
func tmpfsOptions(size int64, kernel string) []string {
	options := []string{fmt.Sprintf("size=%d", size)}
	if running, err := version.ParseGeneric(kernel); err == nil && running.AtLeast(version.MustParseGeneric(noswapSince)) {
		options = append(options, "noswap")
	}
	return options
}

// kernelRelease is the running kernel's, empty when it cannot be had.
var kernelRelease = sync.OnceValue(func() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
})
