package server

import (
	"encoding/json"
	"net/http"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) { s.writePods(w, s.Pods.Pods()) }

func (s *Server) runningPods(w http.ResponseWriter, _ *http.Request) {
	var running []*v1.Pod
	for _, pod := range s.Pods.Pods() {
		if pod.Status.Phase == v1.PodRunning {
			running = append(running, pod)
		}
	}
	s.writePods(w, running)
}

func (s *Server) writePods(w http.ResponseWriter, pods []*v1.Pod) {
	list := v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: make([]v1.Pod, 0, len(pods))}
	for _, pod := range pods {
		list.Items = append(list.Items, *pod)
	}
	writeJSON(w, &list)
}

func writeJSON(w http.ResponseWriter, object any) {
	data, err := json.Marshal(object)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}
