package check

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// presence is how a kernel has a feature.
type presence int

const (
	unknown  presence = iota
	absent            // the kernel was built without it, or its module is not installed
	orphaned          // a module of a kernel whose modules are not on the disk
	loadable          // a module that the kernel loads when it is needed
	present           // built in, or loaded
)

// features finds out what a kernel has.
type features struct {
	*host
	release string
	// builtIn and files are the names of modules in modules.builtin and modules.dep.
	builtIn, files map[string]bool
	// options are the kernel's build options: y or m.
	options map[string]string
	// frozen: the kernel takes no more modules until it is started again.
	frozen bool
}

func (h *host) features(release string) *features {
	f := &features{host: h, release: release, frozen: h.text("proc/sys/kernel/modules_disabled") == "1"}
	folder := filepath.Join("lib/modules", release)
	f.builtIn = f.moduleNames(folder + "/modules.builtin")
	f.files = f.moduleNames(folder + "/modules.dep")
	f.options = f.buildOptions()
	return f
}

// moduleNames are those in the first column of a file of depmod.
func (f *features) moduleNames(file string) map[string]bool {
	names := map[string]bool{}
	for _, line := range f.lines(file) {
		path, _, _ := strings.Cut(line, ":")
		name, _, _ := strings.Cut(filepath.Base(path), ".ko")
		names[underscored(name)] = true
	}
	return names
}

// underscored is how the kernel itself writes a module's name.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

// buildOptions reads the configuration the kernel was built with; nil when
// neither the kernel nor the disk has it.
func (f *features) buildOptions() map[string]string {
	for _, path := range []string{"proc/config.gz", "boot/config-" + f.release, "lib/modules/" + f.release + "/config"} {
		file, err := os.Open(f.path(path))
		if err != nil {
			continue
		}
		defer file.Close()
		var reader io.Reader = file
		if strings.HasSuffix(path, ".gz") {
			if reader, err = gzip.NewReader(file); err != nil {
				continue
			}
		}
		options := map[string]string{}
		scanner := bufio.NewScanner(reader)
		for scanner.Scan() {
			if name, value, ok := strings.Cut(scanner.Text(), "="); ok {
				options[strings.TrimPrefix(name, "CONFIG_")] = value
			}
		}
		return options
	}
	return nil
}

// has says how the kernel has the module, which a build option without CONFIG_
// turns on.
func (f *features) has(module, option string) presence {
	module = underscored(module)
	switch {
	case f.exists("sys/module/" + module), f.builtIn[module], f.options[option] == "y":
		return present
	case f.files[module] && f.frozen:
		return absent
	case f.files[module]:
		return loadable
	case f.options[option] == "m":
		return orphaned
	case f.options != nil || len(f.files) > 0:
		return absent
	}
	return unknown
}
