package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/skiff-run/skiff/cmd/skiff/check"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/version"
)

// machine are the parts about this machine, whatever runs on it.
func (o Options) machine() []part {
	parts := []part{
		{"version.txt", func(context.Context) ([]byte, error) { return []byte("skiff " + version.Version + "\n"), nil }},
		{"check.json", func(ctx context.Context) ([]byte, error) {
			report, err := check.Run(ctx, check.Options{Layout: o.Layout})
			return indented(report, err)
		}},
		{"certificates.json", func(context.Context) ([]byte, error) {
			certificates, err := pki.Check(o.PKI())
			return indented(certificates, err)
		}},
		{"configuration.txt", o.configuration},
		{"machine/files.txt", files("/etc/os-release", "/proc/version", "/proc/cmdline", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/cgroups", "/proc/self/cgroup",
			"/proc/filesystems", "/etc/resolv.conf", "/etc/hosts", "/sys/fs/cgroup/cgroup.controllers", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io")},
		{"machine/mounts.txt", files("/proc/self/mountinfo")},
		{"machine/modules.txt", files("/proc/modules")},
		{"machine/sysctl.txt", commands("sysctl -a --pattern ^(net\\.(ipv4|ipv6|netfilter|bridge|core)|vm|fs\\.(inotify|file)|kernel\\.(pid|threads|panic|keys))")},
		{"machine/disks.txt", commands("df -hT", "df -i")},
		{"machine/processes.txt", commands("ps -eo pid,ppid,user,rss,nlwp,etime,stat,comm")},
		{"machine/kernel-log.txt", commands("dmesg --ctime")},
		{"machine/time.txt", commands("timedatectl show")},
		{"network/addresses.txt", commands("ip -d address", "ip -s link", "ip neighbour")},
		{"network/routes.txt", commands("ip route show table all", "ip -6 route show table all", "ip rule")},
		{"network/sockets.txt", commands("ss -lntup")},
		{"network/nft.txt", commands("nft list ruleset")},
		{"network/iptables.txt", commands("iptables-save", "ip6tables-save")},
		{"network/ipvs.txt", commands("ipvsadm -Ln")},
		{"network/conntrack.txt", commands("conntrack -C", "conntrack -S")},
	}
	return parts
}

// indented is a value as JSON people read.
func indented(value any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(value, "", "  ")
}

// variables are lines of a file of environment variables that are not ours: what
// others keep there is theirs.
var variables = regexp.MustCompile(`(?m)^(\s*(?:export\s+)?)([A-Za-z_][A-Za-z0-9_]*)=.*$`)

// configuration are the files that configure the daemons, one after the other.
func (o Options) configuration(context.Context) ([]byte, error) {
	var names []string
	for _, daemon := range []string{"control", "agent", "proxy"} {
		names = append(names, o.UserConfig(daemon), o.Config(daemon))
		dropIns, _ := filepath.Glob(filepath.Join(config.DropInDir(o.UserConfig(daemon)), "*"))
		names = append(names, dropIns...)
	}
	etc := filepath.Dir(o.PKI())
	names = append(names, filepath.Join(etc, "machine.yaml"), filepath.Join(etc, "servers"))
	data, err := files(names...)(context.Background())
	for _, daemon := range []string{"control", "agent", "proxy"} {
		file := filepath.Join(o.Root, "etc/default/skiff-"+daemon)
		text, readErr := os.ReadFile(file)
		if readErr != nil {
			continue // it need not be there
		}
		text = variables.ReplaceAllFunc(text, func(line []byte) []byte {
			if name := variables.FindSubmatch(line)[2]; !bytes.HasPrefix(name, []byte("SKIFF_")) {
				return append(append([]byte{}, name...), []byte("="+removed)...)
			}
			return line
		})
		data = append(data, fmt.Sprintf("==> %s\n%s\n", file, text)...)
	}
	return data, err
}

// files gathers small files under their names. One that is not there is left out.
func files(names ...string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		var b bytes.Buffer
		var errs []error
		for _, name := range names {
			data, err := os.ReadFile(name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				errs = append(errs, err)
			default:
				fmt.Fprintf(&b, "==> %s\n%s\n", name, data)
			}
		}
		return b.Bytes(), errors.Join(errs...)
	}
}

// commands gathers what programs print; their words are separated by blanks.
func commands(lines ...string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		var b bytes.Buffer
		var errs []error
		for _, line := range lines {
			words := strings.Fields(line)
			output, err := execute(ctx, words[0], words[1:]...)
			if err != nil {
				errs = append(errs, err)
			}
			fmt.Fprintf(&b, "==> %s\n%s\n", line, output)
		}
		if len(errs) == len(lines) {
			return nil, errors.Join(errs...)
		}
		return b.Bytes(), errors.Join(errs...)
	}
}

// execute runs a program and returns what it printed.
func execute(ctx context.Context, program string, arguments ...string) ([]byte, error) {
	var output, complaint bytes.Buffer
	command := exec.CommandContext(ctx, program, arguments...)
	command.Stdout, command.Stderr = &output, &complaint
	command.WaitDelay = time.Second // who inherited its output does not hold us
	if err := command.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed", program)
		}
		return output.Bytes(), fmt.Errorf("%s %s: %w %s", program, strings.Join(arguments, " "), err, strings.TrimSpace(complaint.String()))
	}
	return output.Bytes(), nil
}
