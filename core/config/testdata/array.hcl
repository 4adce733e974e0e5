# Places of array ports, and the graph's own spelling of names.
broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
graph "main" {
  text = "a(A) OUT[0] -> IN[2] b(B)\na OUT[1] -> IN b"
}
participant "a" {
  component = "A"
  outport "OUT" {
    address = "a/out"
  }
}
edge "a.OUT[0]" "b.In[2]" {
  window = 5
}
edge "a.out[1]" "b.IN" {
  window = 6
}
