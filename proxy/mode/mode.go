// Package mode chooses how this machine's kernel is programmed.
//
// A mode is one entry in the list below: a folder of proxy whose backend turns
// a table of service ports into kernel state. Nothing else in the proxy knows
// which modes there are.
package mode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/skiff-run/skiff/proxy"
	"github.com/skiff-run/skiff/proxy/iptables"
	"github.com/skiff-run/skiff/proxy/ipvs"
	"github.com/skiff-run/skiff/proxy/nftables"
	"github.com/skiff-run/skiff/proxy/table"
)

// Auto stands for the first mode of the list that the machine can serve.
const Auto = "auto"

// Options of all modes. A mode takes what concerns it.
type Options struct {
	// ClusterCIDRs are the ranges of all pods. What comes from elsewhere to a
	// cluster address is masqueraded.
	ClusterCIDRs []netip.Prefix
	IPTables     IPTables
	IPVS         IPVS
	Logger       *slog.Logger
}

// IPTables are options of the mode iptables.
type IPTables struct {
	// Variant is nft or legacy; empty: what the machine calls iptables.
	Variant string
	// LocalhostNodePorts serves node ports on 127.0.0.0/8 too.
	LocalhostNodePorts bool
}

// IPVS are options of the mode ipvs.
type IPVS struct {
	// Scheduler is how the kernel names what chooses endpoints.
	Scheduler string
	// StrictARP makes the machine answer ARP for a link's own addresses only.
	StrictARP bool
	// ExcludeCIDRs are addresses whose virtual services are left alone.
	ExcludeCIDRs []netip.Prefix
	// TCPTimeout, TCPFinTimeout and UDPTimeout are how long idle connections are
	// remembered; 0 leaves the kernel's.
	TCPTimeout, TCPFinTimeout, UDPTimeout time.Duration
}

// definition is a mode.
type definition struct {
	name string
	// nodePorts are the addresses that serve node ports when nobody says so, as
	// kube-proxy has them in this mode.
	nodePorts table.NodePortAddresses
	// open returns a backend, or an error that says what the machine lacks. It
	// changes nothing in the kernel.
	open func(Options) (proxy.Backend, error)
	// retire removes what the mode left in the kernel, after another mode serves
	// in its place. It returns false while connections live on in what it had to
	// leave: it is called again then. On a machine that lacks the mode it does
	// nothing.
	retire func(context.Context) (bool, error)
	// cleanup removes everything of the mode at once and nothing else. On a
	// machine that lacks the mode it does nothing.
	cleanup func(context.Context) error
}

// modes in order of preference.
var modes = []definition{
	{
		name: "nftables", nodePorts: table.NodePortAddresses{Primary: true},
		open: func(o Options) (proxy.Backend, error) {
			return nftables.New(nftables.Options{ClusterCIDRs: o.ClusterCIDRs})
		},
		retire: atOnce(nftables.Cleanup), cleanup: nftables.Cleanup,
	},
	{
		name: "iptables",
		open: func(o Options) (proxy.Backend, error) {
			return iptables.New(iptables.Options{
				ClusterCIDRs: o.ClusterCIDRs, Variant: iptables.Variant(o.IPTables.Variant), LocalhostNodePorts: o.IPTables.LocalhostNodePorts,
			})
		},
		retire: atOnce(iptables.Cleanup), cleanup: iptables.Cleanup,
	},
	{
		name: "ipvs",
		open: func(o Options) (proxy.Backend, error) {
			return ipvs.New(ipvs.Options{
				ClusterCIDRs: o.ClusterCIDRs, Scheduler: o.IPVS.Scheduler, StrictARP: o.IPVS.StrictARP, ExcludeCIDRs: o.IPVS.ExcludeCIDRs,
				TCPTimeout: o.IPVS.TCPTimeout, TCPFinTimeout: o.IPVS.TCPFinTimeout, UDPTimeout: o.IPVS.UDPTimeout, Logger: o.Logger,
			})
		},
		retire: ipvs.Retire, cleanup: ipvs.Cleanup,
	},
}

// atOnce is for modes whose connections do not depend on their rules, because
// conntrack holds them.
func atOnce(cleanup func(context.Context) error) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		err := cleanup(ctx)
		return err == nil, err
	}
}

// Mode is a chosen mode.
type Mode struct {
	Name    string
	Backend proxy.Backend
	// NodePorts are the addresses that serve node ports unless something else is
	// configured.
	NodePorts table.NodePortAddresses
}

// Names are those of all modes and auto.
func Names() []string {
	names := []string{Auto}
	for _, m := range modes {
		names = append(names, m.name)
	}
	return names
}

// Open returns the mode of that name, or for auto the first that the machine
// can serve. It changes nothing in the kernel.
func Open(name string, options Options) (*Mode, error) {
	return choose(modes, name, options)
}

func choose(modes []definition, name string, options Options) (*Mode, error) {
	logger := cmp.Or(options.Logger, slog.New(slog.DiscardHandler))
	var lacking []error
	for _, m := range modes {
		if name != m.name && name != Auto {
			continue
		}
		backend, err := m.open(options)
		if err != nil {
			lacking = append(lacking, fmt.Errorf("mode %s: %w", m.name, err))
			continue
		}
		if name == Auto {
			logger.Info("mode chosen", "mode", m.name)
			for _, reason := range lacking {
				logger.Warn("a better mode cannot be used", "mode", m.name, "reason", reason)
			}
		}
		return &Mode{Name: m.name, Backend: backend, NodePorts: m.nodePorts}, nil
	}
	if len(lacking) == 0 {
		return nil, fmt.Errorf("mode %q is not one of %s", name, strings.Join(Names(), ", "))
	}
	return nil, errors.Join(lacking...)
}

// Retire removes what other modes than the one of that name left in the
// kernel. It returns false when it must be called again, because connections
// live on in what is left or because of the error.
func Retire(ctx context.Context, name string) (bool, error) {
	done := true
	var errs []error
	for _, m := range modes {
		if m.name == name {
			continue
		}
		gone, err := m.retire(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("remove what mode %s left: %w", m.name, err))
		}
		done = done && gone && err == nil
	}
	return done, errors.Join(errs...)
}

// Cleanup removes everything of every mode and nothing else.
func Cleanup(ctx context.Context) error {
	var errs []error
	for _, m := range modes {
		if err := m.cleanup(ctx); err != nil {
			errs = append(errs, fmt.Errorf("remove what mode %s made: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}
