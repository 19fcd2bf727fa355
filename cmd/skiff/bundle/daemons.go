package bundle

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skiff-run/skiff/internal/config"
)

// unitProperties are those of a unit that say how it does, not what it was given.
const unitProperties = "Id,LoadState,ActiveState,SubState,Result,StatusText,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload,ExecMainStartTimestamp,ExecMainExitTimestamp," +
	"ExecMainCode,ExecMainStatus,MainPID,NRestarts,MemoryCurrent,MemoryPeak,CPUUsageNSec,TasksCurrent,Slice,ControlGroup,User,WatchdogUSec,WatchdogTimestamp"

// daemons are the parts about Skiff's daemons and containerd on this machine.
func (o Options) daemons() []part {
	parts := []part{
		{"daemons/states.txt", func(context.Context) ([]byte, error) {
			var b strings.Builder
			for _, daemon := range o.Daemons() {
				fmt.Fprintf(&b, "skiff-%s: %s\n", daemon.Name, daemon.State)
			}
			return []byte(b.String()), nil
		}},
		{"daemons/proxy-metrics.txt", o.proxyMetrics},
		{"containerd/containers.txt", func(ctx context.Context) ([]byte, error) {
			agent := config.DefaultAgent()
			if err := config.Load(o.Config("agent"), config.AgentKind, agent); err != nil {
				agent.ContainerdAddress = o.ContainerdSocket()
			}
			if _, err := os.Stat(agent.ContainerdAddress); err != nil {
				return nil, fmt.Errorf("containerd does not run: %w", err)
			}
			ctr := "ctr --connect-timeout 5s --address " + agent.ContainerdAddress + " --namespace " + agent.ContainerdNamespace
			return commands(ctr+" version", ctr+" containers list", ctr+" tasks list", ctr+" images list --quiet")(ctx)
		}},
	}
	if !o.systemd() {
		names, _ := filepath.Glob(filepath.Join(o.Logs(), "*.log*"))
		for _, name := range names {
			parts = append(parts, part{"logs/" + filepath.Base(name), func(context.Context) ([]byte, error) { return tail(name) }})
		}
		return parts
	}
	since := fmt.Sprintf("--since=@%d", time.Now().Add(-o.Since).Unix())
	for _, unit := range []string{"skiff-control", "skiff-agent", "skiff-proxy", "containerd"} {
		parts = append(parts,
			part{"logs/" + unit + ".txt", func(ctx context.Context) ([]byte, error) {
				return execute(ctx, "journalctl", "--no-pager", "--unit", unit, since, "--output=short-iso-precise")
			}},
			part{"daemons/" + unit + ".txt", func(ctx context.Context) ([]byte, error) {
				return execute(ctx, "systemctl", "show", "--no-pager", "--property="+unitProperties, unit)
			}})
	}
	return append(parts, part{"daemons/units.txt", commands("systemctl --no-pager list-units --all skiff*", "systemctl --no-pager --failed", "systemctl --no-pager cat skiff-control skiff-agent skiff-proxy")},
		part{"logs/kernel.txt", func(ctx context.Context) ([]byte, error) {
			return execute(ctx, "journalctl", "--no-pager", "--dmesg", since, "--output=short-iso-precise")
		}})
}

// systemd says whether the daemons of this cluster are systemd's.
func (o Options) systemd() bool {
	if o.Root != "/" {
		return false
	}
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// tail is the end of a file, as much as a part may have.
func tail(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > partSize {
		if _, err := file.Seek(-partSize, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("read the end of %s: %w", name, err)
		}
	}
	return io.ReadAll(io.LimitReader(file, partSize))
}

// proxyMetrics asks the proxy of this machine on loopback.
func (o Options) proxyMetrics(ctx context.Context) ([]byte, error) {
	proxy := config.DefaultProxy()
	for _, file := range []string{o.Config("proxy"), o.UserConfig("proxy")} {
		if err := config.Load(file, config.ProxyKind, proxy); err == nil {
			break
		}
	}
	if _, err := config.LoadDropIns(o.UserConfig("proxy"), config.ProxyKind, proxy); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", proxy.MetricsPort), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the proxy for its metrics: %w", err)
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, partSize))
}
