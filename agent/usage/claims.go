package usage

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Claims are the metrics of the volumes behind persistent volume claims, under
// the kubelet's names.
func (c *Collector) Claims() prometheus.Collector { return claimMetrics{c} }

type claimMetrics struct{ *Collector }

// Describe sends nothing: what is collected is known only then.
func (claimMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m claimMetrics) Collect(out chan<- prometheus.Metric) {
	labels := []string{"namespace", "persistentvolumeclaim"}
	seen := map[string]bool{}
	for _, pod := range m.Pods.Pods() {
		claims := false
		for i := range pod.Spec.Volumes {
			claims = claims || pod.Spec.Volumes[i].PersistentVolumeClaim != nil || pod.Spec.Volumes[i].Ephemeral != nil
		}
		if !claims {
			continue
		}
		for _, v := range m.volumeStats(pod).list {
			// Several pods may share one.
			if v.PVCRef == nil || seen[v.PVCRef.Namespace+"/"+v.PVCRef.Name] {
				continue
			}
			seen[v.PVCRef.Namespace+"/"+v.PVCRef.Name] = true
			for name, figure := range map[string]struct {
				value *uint64
				help  string
			}{
				"kubelet_volume_stats_capacity_bytes":  {v.CapacityBytes, "Capacity in bytes of the volume"},
				"kubelet_volume_stats_available_bytes": {v.AvailableBytes, "Number of available bytes in the volume"},
				"kubelet_volume_stats_used_bytes":      {v.UsedBytes, "Number of used bytes in the volume"},
				"kubelet_volume_stats_inodes":          {v.Inodes, "Maximum number of inodes in the volume"},
				"kubelet_volume_stats_inodes_free":     {v.InodesFree, "Number of free inodes in the volume"},
				"kubelet_volume_stats_inodes_used":     {v.InodesUsed, "Number of used inodes in the volume"},
			} {
				if figure.value != nil {
					out <- gauge(name, figure.help, labels...).at(time.Time{}, float64(*figure.value), v.PVCRef.Namespace, v.PVCRef.Name)
				}
			}
		}
	}
}
