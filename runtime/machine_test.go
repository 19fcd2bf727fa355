package runtime_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// shims counts the shim processes of our containerd, which runs one pod at a time.
func shims(h *harness) int {
	h.Helper()
	entries, err := os.ReadDir("/proc")
	h.must(err)
	count := 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		if strings.Contains(string(line), "containerd-shim-runc-v2") && strings.Contains(string(line), h.d.dir) {
			count++
		}
	}
	return count
}

// pidOf is the process ID of a running container.
func pidOf(h *harness, id string) string {
	h.Helper()
	response, err := h.rt.ContainerStatus(h.ctx(), id, true)
	h.must(err)
	var info struct{ Pid int }
	h.must(json.Unmarshal([]byte(response.GetInfo()["info"]), &info))
	if info.Pid == 0 {
		h.Fatalf("container %s has no process", id)
	}
	return strconv.Itoa(info.Pid)
}

func httpGet(h *harness, url string) string {
	h.Helper()
	response, err := http.Get(url)
	h.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	h.must(err)
	return string(body)
}
