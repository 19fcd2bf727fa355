package scheduler

import (
	"container/heap"
	"context"
	"math/bits"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// Back-off between two attempts to place one pod, doubled from the first to
// the last, and how long a pod stays aside when nothing relevant happens: the
// figures of kube-scheduler.
const (
	initialBackoff      = time.Second
	maxBackoff          = 10 * time.Second
	maxUnschedulableAge = 5 * time.Minute
)

// Queue holds the pods that have no node, in three parts: active ones by
// priority, those in back-off by the time they return, and those that nothing
// but an event can help. It is safe for concurrent use; Pop has one caller.
type Queue struct {
	mu            sync.Mutex
	active        itemHeap
	backoff       itemHeap
	unschedulable map[types.UID]*Item
	all           map[types.UID]*Item // wherever they are, the one being decided included
	wake          chan struct{}

	// sequence counts events; lastSeen is the number of the last of each kind.
	// They tell whether something relevant happened while a pod was decided.
	sequence uint64
	lastSeen [32]uint64
}

// Item is a pod on its way through the queue.
type Item struct {
	Pod      *framework.PodInfo
	attempts int
	queued   time.Time // since when it waits, the order among equals
	returns  time.Time // end of its back-off, or of its time aside
	helpedBy framework.Event
	popped   uint64 // value of sequence when it was taken
	where    place
	index    int // in its heap
}

type place int

const (
	deciding place = iota
	inActive
	inBackoff
	aside
)

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	return &Queue{
		active:        itemHeap{less: activeBefore},
		backoff:       itemHeap{less: func(a, b *Item) bool { return a.returns.Before(b.returns) }},
		unschedulable: map[types.UID]*Item{},
		all:           map[types.UID]*Item{},
		wake:          make(chan struct{}, 1),
	}
}

func activeBefore(a, b *Item) bool {
	if pa, pb := a.Pod.Priority(), b.Pod.Priority(); pa != pb {
		return pa > pb
	}
	return a.queued.Before(b.queued)
}

// Put adds a pod, or replaces the one with the same UID. spec says that
// something changed which may make a rejected pod fit; otherwise only the
// object is replaced.
func (q *Queue) Put(pod *framework.PodInfo, spec bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	uid := pod.Pod.UID
	item, known := q.all[uid]
	if !known {
		item = &Item{queued: time.Now()}
		q.all[uid] = item
		item.Pod = pod
		q.activate(item)
		return
	}
	item.Pod = pod
	switch {
	case item.where == inActive:
		heap.Fix(&q.active, item.index)
	case item.where == aside && spec:
		delete(q.unschedulable, uid)
		q.activate(item)
	}
}

// Remove forgets a pod: it was bound or deleted.
func (q *Queue) Remove(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	item, known := q.all[uid]
	if !known {
		return
	}
	delete(q.all, uid)
	switch item.where {
	case inActive:
		heap.Remove(&q.active, item.index)
	case inBackoff:
		heap.Remove(&q.backoff, item.index)
	case aside:
		delete(q.unschedulable, uid)
	}
}

// Pop waits for the next pod to decide. The error is the context's.
func (q *Queue) Pop(ctx context.Context) (*Item, error) {
	for {
		item, wait := q.next()
		if item != nil {
			return item, nil
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.wake:
		case <-timer:
		}
	}
}

// next takes the first active pod; when there is none it returns how long to
// wait for a pod whose time comes, 0 for ever.
func (q *Queue) next() (*Item, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for q.backoff.Len() > 0 && !q.backoff.items[0].returns.After(now) {
		q.activate(heap.Pop(&q.backoff).(*Item))
	}
	if q.active.Len() > 0 {
		item := heap.Pop(&q.active).(*Item)
		item.where, item.popped = deciding, q.sequence
		item.attempts++
		return item, 0
	}
	var soonest time.Time
	if q.backoff.Len() > 0 {
		soonest = q.backoff.items[0].returns
	}
	for uid, item := range q.unschedulable {
		if !item.returns.After(now) {
			delete(q.unschedulable, uid)
			q.activate(item)
			continue
		}
		if soonest.IsZero() || item.returns.Before(soonest) {
			soonest = item.returns
		}
	}
	if q.active.Len() > 0 {
		return nil, time.Nanosecond
	}
	if soonest.IsZero() {
		return nil, 0
	}
	return nil, soonest.Sub(now)
}

// Retry returns a pod whose decision could not be carried out.
func (q *Queue) Retry(item *Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waits(item) {
		q.backOff(item)
	}
}

// Unschedulable puts a pod aside until one of the events happens. If one
// happened since the pod was taken, it only backs off.
func (q *Queue) Unschedulable(item *Item, helpedBy framework.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.waits(item) {
		return
	}
	item.helpedBy = helpedBy
	for left := uint32(helpedBy); left != 0; left &= left - 1 {
		if q.lastSeen[bits.TrailingZeros32(left)] > item.popped {
			q.backOff(item)
			return
		}
	}
	item.where, item.returns = aside, time.Now().Add(maxUnschedulableAge)
	q.unschedulable[item.Pod.Pod.UID] = item
	q.signal()
}

// waits says whether the item still stands for a pod that needs a node.
func (q *Queue) waits(item *Item) bool {
	return q.all[item.Pod.Pod.UID] == item && item.where == deciding
}

// Happened tells the queue of an event: pods it may help leave their place
// aside, through their back-off if that is not over.
func (q *Queue) Happened(event framework.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sequence++
	for left := uint32(event); left != 0; left &= left - 1 {
		q.lastSeen[bits.TrailingZeros32(left)] = q.sequence
	}
	for uid, item := range q.unschedulable {
		if item.helpedBy&event != 0 {
			delete(q.unschedulable, uid)
			q.backOff(item)
		}
	}
}

func (q *Queue) backOff(item *Item) {
	delay := initialBackoff
	for i := 1; i < item.attempts && delay < maxBackoff; i++ {
		delay *= 2
	}
	item.returns = time.Now().Add(min(delay, maxBackoff))
	item.where = inBackoff
	heap.Push(&q.backoff, item)
	q.signal()
}

func (q *Queue) activate(item *Item) {
	item.where = inActive
	heap.Push(&q.active, item)
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Counts returns how many pods are active, in back-off and aside.
func (q *Queue) Counts() (active, backoff, unschedulable int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.active.Len(), q.backoff.Len(), len(q.unschedulable)
}

// itemHeap implements heap.Interface over items.
type itemHeap struct {
	items []*Item
	less  func(a, b *Item) bool
}

func (h *itemHeap) Len() int           { return len(h.items) }
func (h *itemHeap) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }
func (h *itemHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].index, h.items[j].index = i, j
}
func (h *itemHeap) Push(x any) {
	item := x.(*Item)
	item.index = len(h.items)
	h.items = append(h.items, item)
}
func (h *itemHeap) Pop() any {
	last := h.items[len(h.items)-1]
	h.items[len(h.items)-1] = nil
	h.items = h.items[:len(h.items)-1]
	return last
}
