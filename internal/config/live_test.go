package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAReloadAppliesWhatCanChangeAndNamesTheRest(t *testing.T) {
	t.Parallel()
	flags, dir := agentFlags(t, map[string]string{"agent.yaml": "maxPods: 10\nport: 7250\n"}, "--cluster-domain=flag.example")
	if err := flags.Complete(); err != nil {
		t.Fatal(err)
	}
	live := flags.Follow([]string{"maxPods", "logLevel", "clusterDomain", "memorySwap.swapBehavior"})
	write := func(content string) {
		t.Helper()
		place := filepath.Join(dir, "agent.d", "50-a.yaml")
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, []byte("apiVersion: skiff.dev/v1\nkind: AgentConfiguration\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got *Agent
	take := func(c *Agent) error { got = c; return nil }

	write("maxPods: 20\nport: 7777\nclusterDomain: file.example\nmemorySwap: {swapBehavior: LimitedSwap}\n")
	applied, waiting, err := live.Reload(take)
	if err != nil || !slices.Equal(applied, []string{"memorySwap.swapBehavior", "maxPods"}) || !slices.Equal(waiting, []string{"port"}) {
		t.Fatalf("applied %v, waiting %v, %v", applied, waiting, err)
	}
	if got.MaxPods != 20 || got.Port != 7250 || got.ClusterDomain != "flag.example" || got.Resources.MemorySwap.SwapBehavior != "LimitedSwap" {
		t.Errorf("%d pods, port %d, domain %s", got.MaxPods, got.Port, got.ClusterDomain)
	}
	// A second time there is nothing to apply, and the rest still waits.
	got = nil
	if applied, waiting, err = live.Reload(take); err != nil || len(applied) > 0 || !slices.Equal(waiting, []string{"port"}) || got != nil {
		t.Errorf("again: applied %v, waiting %v, %v", applied, waiting, err)
	}
	for _, broken := range []string{"maxPods: 0\n", "maxPod: 30\n", "maxPods: [\n"} {
		write(broken)
		if _, _, err = live.Reload(take); err == nil || got != nil {
			t.Errorf("%q was applied: %v", broken, err)
		}
	}
	// What could not be applied is tried again.
	write("maxPods: 40\n")
	if _, _, err = live.Reload(func(*Agent) error { return errors.New("not now") }); err == nil {
		t.Error("an error was lost")
	}
	if applied, waiting, err = live.Reload(take); err != nil || !slices.Contains(applied, "maxPods") || len(waiting) > 0 || got.MaxPods != 40 {
		t.Errorf("after an error: applied %v, waiting %v, %v", applied, waiting, err)
	}
}

func TestChangesThatOnlyFitTogetherWaitTogether(t *testing.T) {
	t.Parallel()
	flags, dir := agentFlags(t, map[string]string{"agent.yaml": "imageGCLowThresholdPercent: 50\nimageGCHighThresholdPercent: 60\n"})
	if err := flags.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "agent.yaml"), []byte("apiVersion: skiff.dev/v1\nkind: AgentConfiguration\nimageGCLowThresholdPercent: 70\nimageGCHighThresholdPercent: 80\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := flags.Follow([]string{"imageGCLowThresholdPercent"}).Reload(func(*Agent) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("got %v", err)
	}
}

func TestValidateChecksFilesThatAreNotInPlaceYet(t *testing.T) {
	t.Parallel()
	flags, dir := agentFlags(t, map[string]string{"agent.yaml": "maxPods: 10\n", "new.yaml": "maxPods: 0\n", "good.yaml": "maxPods: 5\n"})
	for file, wanted := range map[string]string{"new.yaml": "maxPods", "good.yaml": "", "missing.yaml": "missing.yaml"} {
		command := ValidateCommand(flags)
		var out strings.Builder
		command.SetOut(&out)
		command.SetArgs([]string{filepath.Join(dir, file)})
		command.SilenceErrors, command.SilenceUsage = true, true
		err := command.Execute()
		if wanted == "" && (err != nil || !strings.Contains(out.String(), "good.yaml")) {
			t.Errorf("%s: %v, %s", file, err, out.String())
		}
		if wanted != "" && (err == nil || !strings.Contains(err.Error(), wanted)) {
			t.Errorf("%s: got %v", file, err)
		}
	}
}
