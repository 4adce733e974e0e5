package transport

// fifo is a growing ring: push and pop cost no allocation once it has grown to the window's size.
type fifo[E any] struct {
	buf  []E // len(buf) is a power of two, or 0
	head int
	n    int
}

func (q *fifo[E]) len() int { return q.n }

func (q *fifo[E]) at(i int) *E { return &q.buf[(q.head+i)&(len(q.buf)-1)] }

func (q *fifo[E]) push(e E) {
	if q.n == len(q.buf) {
		grown := make([]E, max(16, 2*len(q.buf)))
		for i := range q.n {
			grown[i] = *q.at(i)
		}
		q.buf, q.head = grown, 0
	}
	q.n++
	*q.at(q.n - 1) = e
}

func (q *fifo[E]) pop() {
	var zero E
	*q.at(0) = zero // what it held may be collected
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
}
