"""LangGraph with langchain-openai: a graph of a model node and a tool node."""

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def find(po_number: str) -> dict:
    """Find an order."""
    return {"po_number": po_number, "total": 42}


model = ChatOpenAI(model="m").bind_tools([find])
builder = StateGraph(MessagesState)
builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
builder.add_node("tools", ToolNode([find]))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", tools_condition)
builder.add_edge("tools", "model")
graph = builder.compile()


def answer(text):
    """The last message of the graph."""
    return {"said": graph.invoke({"messages": [("user", text)]})["messages"][-1].content}
