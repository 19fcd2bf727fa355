package config

import (
	"testing"
	"time"
)

func TestThresholds(t *testing.T) {
	c := DefaultAgent()
	list, errs := c.Resources.Thresholds()
	if len(errs) > 0 || len(list) != 5 {
		t.Fatalf("defaults: %v, %v", list, errs)
	}
	err := complete(t, AgentKind, c, "apiVersion: skiff.dev/v1\nkind: AgentConfiguration\n"+
		"evictionHard: {memory.available: 200Mi, nodefs.available: 0%}\nevictionSoft: {pid.available: 10%}\nevictionSoftGracePeriod: {pid.available: 90s}\n"+
		"evictionMinimumReclaim: {memory.available: 50Mi}\n")
	if err != nil {
		t.Fatal(err)
	}
	list, errs = c.Resources.Thresholds()
	if len(errs) > 0 || len(list) != 2 {
		t.Fatalf("%v, %v", list, errs)
	}
	memory, pids := list[0], list[1]
	if memory.Signal != "memory.available" || memory.Value.Of(0).String() != "200Mi" || memory.GracePeriod != 0 || memory.MinReclaim.Of(0).String() != "50Mi" {
		t.Errorf("memory: %+v", memory)
	}
	if pids.Signal != "pid.available" || pids.Value.Of(32768).Value() != 3276 || pids.GracePeriod != 90*time.Second {
		t.Errorf("process ids: %+v", pids)
	}
	c.Resources.MergeDefaultEvictionSettings = true
	if list, _ = c.Resources.Thresholds(); len(list) != 5 {
		t.Errorf("merged with the defaults, one of which is switched off: %v", list)
	}
}
