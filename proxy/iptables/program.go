package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	goiptables "github.com/coreos/go-iptables/iptables"
	corev1 "k8s.io/api/core/v1"
)

// Variant is one of the programs called iptables.
type Variant string

// The variants, by what they program.
const (
	NFT    Variant = "nft"
	Legacy Variant = "legacy"
)

// lockWait is for how many seconds the programs wait while another program
// holds the lock of iptables.
const lockWait = 5

// ErrLocked says that another program held the lock of iptables for too long.
var ErrLocked = errors.New("another program holds the lock of iptables")

// locked is how the programs end without the lock (RESOURCE_PROBLEM).
const locked = 4

// program is one variant for one family: the names of its three commands.
type program struct {
	kind                    corev1.IPFamily
	variant                 Variant
	iptables, restore, save string
	// wait is for how many seconds to wait for the lock.
	wait int
}

func newProgram(kind corev1.IPFamily, variant Variant) *program {
	name := "iptables"
	if kind == corev1.IPv6Protocol {
		name = "ip6tables"
	}
	if variant != "" {
		name += "-" + string(variant)
	}
	return &program{kind: kind, variant: variant, iptables: name, restore: name + "-restore", save: name + "-save", wait: lockWait}
}

// findProgram returns what the machine has, and whether the kernel has it.
func findProgram(kind corev1.IPFamily, variant Variant) (*program, error) {
	p := newProgram(kind, variant)
	for _, command := range []string{p.iptables, p.restore, p.save} {
		if _, err := exec.LookPath(command); err != nil {
			return nil, fmt.Errorf("use iptables: %w (apt-get install iptables)", err)
		}
	}
	output, err := exec.Command(p.iptables, "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("use iptables: %s --version: %w: %s", p.iptables, err, output)
	}
	// The legacy program said nothing before there was another.
	p.variant = Legacy
	if strings.Contains(string(output), "nf_tables") {
		p.variant = NFT
	}
	if output, err := exec.Command(p.iptables, "--wait", strconv.Itoa(lockWait), "--table", "nat", "--list-rules", "POSTROUTING").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("use iptables: %s cannot read the table nat, it needs root and a kernel with iptables: %w: %s", p.iptables, err, bytes.TrimSpace(output))
	}
	return p, nil
}

// others are the installed programs of the other variant.
func (p *program) others() []*program {
	other := NFT
	if p.variant == NFT {
		other = Legacy
	}
	if o := newProgram(p.kind, other); o.installed() {
		return []*program{o}
	}
	return nil
}

func (p *program) installed() bool {
	for _, command := range []string{p.iptables, p.restore, p.save} {
		if _, err := exec.LookPath(command); err != nil {
			return false
		}
	}
	return true
}

// manyChains is how many chains one change names with the program on nf_tables;
// the legacy one writes a whole table at every change.
const manyChains = 400

// run feeds a transaction to iptables-restore: one change of each table, or for
// a great many chains several.
func (p *program) run(ctx context.Context, tx *transaction) error {
	text := tx.String()
	if p.variant == NFT {
		text = tx.text(manyChains)
	}
	command := exec.CommandContext(ctx, p.restore, "--noflush", "--wait", strconv.Itoa(p.wait))
	command.Stdin = strings.NewReader(text)
	output, err := command.CombinedOutput()
	return p.explain(err, p.restore, output)
}

// explain says what a command said, and tells the lock from other reasons.
func (p *program) explain(err error, command string, output []byte) error {
	if err == nil {
		return nil
	}
	said := bytes.TrimSpace(output)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == locked && bytes.Contains(output, []byte("lock")) {
		return fmt.Errorf("%s waited %d s: %w: %s", command, p.wait, ErrLocked, said)
	}
	return fmt.Errorf("%s: %w: %s", command, err, said)
}

// chains opens the library that makes single rules.
func (p *program) chains() (*goiptables.IPTables, error) {
	protocol := goiptables.ProtocolIPv4
	if p.kind == corev1.IPv6Protocol {
		protocol = goiptables.ProtocolIPv6
	}
	path, err := exec.LookPath(p.iptables)
	if err != nil {
		return nil, fmt.Errorf("use iptables: %w", err)
	}
	tables, err := goiptables.New(goiptables.IPFamily(protocol), goiptables.Path(path), goiptables.Timeout(p.wait))
	if err != nil {
		return nil, fmt.Errorf("use %s: %w", path, err)
	}
	return tables, nil
}

// ensureJumps makes the rules in the kernel's own chains that lead to ours,
// where they are not yet: at the front, because what stands before might accept
// or drop what is ours to decide. Chains that do not exist are made empty, which
// changes nothing for a packet. It goes before the rules, because with the legacy
// program each change of a table costs as much as the table is large.
func (p *program) ensureJumps(found *inventory) error {
	var tables *goiptables.IPTables
	for _, j := range jumps() {
		if found.jumps[j.key()] > 0 {
			continue
		}
		if tables == nil {
			var err error
			if tables, err = p.chains(); err != nil {
				return err
			}
		}
		if _, exists := found.rules[chainKey{j.table, j.to}]; !exists {
			if err := tables.NewChain(j.table, j.to); err != nil {
				return fmt.Errorf("make chain %s of table %s: %w", j.to, j.table, wrapLocked(err))
			}
			found.rules[chainKey{j.table, j.to}] = 0
		}
		if err := tables.InsertUnique(j.table, j.from, 1, j.words()...); err != nil {
			return fmt.Errorf("jump from chain %s of table %s to %s: %w", j.from, j.table, j.to, wrapLocked(err))
		}
	}
	return nil
}

// wrapLocked gives an error of the library the mark that explain gives.
func wrapLocked(err error) error {
	var failed *goiptables.Error
	if errors.As(err, &failed) && failed.ExitStatus() == locked && strings.Contains(failed.Error(), "lock") {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return err
}

// routeLocalnet lets packets from 127.0.0.1 leave for an endpoint.
func routeLocalnet() error {
	if err := setRouteLocalnet("1"); err != nil {
		return fmt.Errorf("serve node ports on 127.0.0.1: %w; or set iptables.localhostNodePorts to false", err)
	}
	return nil
}

func setRouteLocalnet(value string) error {
	const setting = "/proc/sys/net/ipv4/conf/all/route_localnet"
	if now, err := os.ReadFile(setting); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	return os.WriteFile(setting, []byte(value), 0o600)
}
