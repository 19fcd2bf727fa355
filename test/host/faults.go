package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// faultTable prepares the switch's filter: frames between a pair of ports in
// the set are dropped.
func (n *Network) faultTable() error {
	return n.nft(`
table bridge faults {
	set cut { type ifname . ifname; }
	chain loss { }
	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname . oifname @cut counter drop
		jump loss
	}
}`)
}

func (n *Network) nft(script string) error {
	command := n.Switch.Command(context.Background(), "nft", "-f", "-")
	command.Stdin = strings.NewReader(script)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft on %s: %w\n%s\n%s", n.Switch.Name, err, script, output)
	}
	return nil
}

// Direction is the way frames go from one host to another.
type Direction struct{ From, To *Host }

// Both are the two directions between two hosts.
func Both(a, b *Host) []Direction { return []Direction{{a, b}, {b, a}} }

// Between are all directions between two groups of hosts.
func Between(one, other []*Host) []Direction {
	var all []Direction
	for _, a := range one {
		for _, b := range other {
			all = append(all, Both(a, b)...)
		}
	}
	return all
}

// Cut stops frames in these directions, on top of what is cut already. Open
// connections are not told: nothing arrives any more. The switch itself still
// reaches every host.
func (n *Network) Cut(directions ...Direction) error {
	if len(directions) == 0 {
		return nil
	}
	var pairs []string
	for _, d := range directions {
		pairs = append(pairs, fmt.Sprintf("%q . %q", d.From.Name, d.To.Name))
	}
	return n.nft("add element bridge faults cut { " + strings.Join(pairs, ", ") + " }")
}

// Lose drops this percentage of the frames in these directions at random.
func (n *Network) Lose(percent int, directions ...Direction) error {
	var script strings.Builder
	for _, d := range directions {
		some := fmt.Sprintf("numgen random mod 100 < %d", percent)
		if percent >= 100 {
			some = "" // nft refuses a comparison that always holds
		}
		fmt.Fprintf(&script, "add rule bridge faults loss iifname %q oifname %q %s drop\n", d.From.Name, d.To.Name, some)
	}
	return n.nft(script.String())
}

// Heal ends every cut and loss, and plugs in every cable.
func (n *Network) Heal() error {
	errs := []error{n.nft("flush set bridge faults cut\nflush chain bridge faults loss\n")}
	for _, h := range n.Hosts {
		if h.On() {
			errs = append(errs, n.Plug(h))
		}
	}
	return errors.Join(errs...)
}

// Unplug pulls a host's cable out of the switch: nobody reaches it, not even
// the switch, and its link is down.
func (n *Network) Unplug(h *Host) error {
	return n.run(n.Switch.Name, []string{"ip", "link", "set", h.Name, "down"})
}

// Plug puts a host's cable in again.
func (n *Network) Plug(h *Host) error {
	return n.run(n.Switch.Name, []string{"ip", "link", "set", h.Name, "up"})
}

// Delay holds back every frame to the host for about so many milliseconds. It
// needs the kernel's netem, and says errors.ErrUnsupported without it; 0 ends it.
func (n *Network) Delay(h *Host, milliseconds int) error {
	if milliseconds == 0 {
		return n.run(n.Switch.Name, []string{"tc", "qdisc", "del", "dev", h.Name, "root"})
	}
	err := n.run(n.Switch.Name, strings.Fields(fmt.Sprintf("tc qdisc replace dev %s root netem delay %dms %dms", h.Name, milliseconds, milliseconds/4)))
	if err != nil && strings.Contains(err.Error(), "qdisc kind is unknown") {
		return fmt.Errorf("delay of host %s: this kernel has no netem: %w", h.Name, errors.ErrUnsupported)
	}
	return err
}

// SmallDisk puts a file system of so many bytes in memory over a folder of the
// host, empty: a disk that can be filled. It is gone when the host is off.
func (h *Host) SmallDisk(ctx context.Context, folder string, bytes int) error {
	_, err := h.Run(ctx, "sh", "-c", `mkdir -p "$1" && mount -t tmpfs -o "size=$2,mode=700" tmpfs "$1"`, "sh", folder, fmt.Sprint(bytes))
	return err
}
